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
tamis=$here/../build/release/tamis
scratch=${TMPDIR:-/tmp}/tamis-bench
model=
data=
options=()

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

while [ $# -gt 0 ]; do
  case $1 in
    --scratch) scratch=${2:?--scratch needs a folder}; shift 2 ;;
    --model) model=${2:?--model needs a folder}; shift 2 ;;
    --data) data=${2:?--data needs a file}; shift 2 ;;
    --samples | --seqlen | --bits | --group | --threads | --repetitions) options+=("$1" "${2:?$1 needs a value}"); shift 2 ;;
    --json) options+=("$1"); shift ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "bench/calibrate.sh: unknown option $1" >&2; exit 1 ;;
    *) tamis=$1; shift ;;
  esac
done

python=${PYTHON:-python3}
if ! "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("gptqmodel") is None)'; then
  echo "bench/calibrate.sh: $python has no GPTQModel: set PYTHON to one that has" >&2
  exit 1
fi
if [ ! -x "$tamis" ]; then
  echo "bench/calibrate.sh: no tamis at $tamis: build it, or name it" >&2
  exit 1
fi
if [ ! -d "$model" ] || [ ! -f "$data" ]; then
  echo "bench/calibrate.sh: --model FOLDER and --data TEXT are needed" >&2
  exit 1
fi

mkdir -p "$scratch"
"${CC:-cc}" -std=gnu11 -O2 -o "$scratch/measure" "$here/measure.c"
exec python3 -B "$here/calibrate_speed.py" --tamis "$tamis" --python "$python" --model "$model" --data "$data" \
  --measure "$scratch/measure" --scratch "$scratch" "${options[@]}"
