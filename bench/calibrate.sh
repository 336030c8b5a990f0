#!/usr/bin/env bash
# Times `tamis quantize --method gptq` against GPTQModel on the CPU: one pass over a text, GPTQ, the written folder.
#
#   bench/calibrate.sh --model FOLDER --data TEXT [--scratch DIR] [--samples 128] [--seqlen 512] [--bits 4] [--group 128]
#                      [--threads 2] [--repetitions 1] [--json] [TAMIS]
#
#   TAMIS      the program to time (default: build/release/tamis of this repository)
#   --model    a folder whose rows the group divides: SmolLM2-135M's 576 columns want --group 64, its wide form takes 128
#   --scratch  where the folders are written (default: tamis-bench in $TMPDIR or /tmp)
#   --samples  so many sequences of --seqlen tokens from the start of the text: 128 of 512 are 64k tokens
#
# A Python that has GPTQModel (pip install gptqmodel) is taken from PYTHON, default python3. Both programs get the same
# sequences of token ids and run in turns. README.md says how to read the table.
# Exit: 0 done; 1 wrong usage, or a program is missing or failed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
program=$here/../build/release/tamis
scratch=${TMPDIR:-/tmp}/tamis-bench
model=
data=
options=()
# shellcheck source=/dev/null
. "$here/common.sh"
arguments "scratch model data" "samples seqlen bits group threads repetitions" "$@"

python=${PYTHON:-python3}
if ! "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("gptqmodel") is None)'; then
  fail "$python has no GPTQModel: set PYTHON to one that has"
fi
if [ ! -x "$program" ]; then
  fail "no tamis at $program: build it, or name it"
fi
if [ ! -d "$model" ] || [ ! -f "$data" ]; then
  fail "--model FOLDER and --data TEXT are needed"
fi

mkdir -p "$scratch"
"${CC:-cc}" -std=gnu11 -O2 -o "$scratch/measure" "$here/measure.c"
exec python3 -B "$here/calibrate_speed.py" --tamis "$program" --python "$python" --model "$model" --data "$data" \
  --measure "$scratch/measure" --scratch "$scratch" "${options[@]}"
