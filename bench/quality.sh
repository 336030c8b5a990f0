#!/usr/bin/env bash
# Measures what quantizing loses: size, perplexity and KL divergence of every type by every method, beside llama-quantize.
#
#   bench/quality.sh --model FOLDER --data CALIBRATION --eval TEXT [--types q4_k_m,q2_k,gptq:4:g128,nf4,...]
#                    [--methods llama,rtn,search,gptq] [--samples 128] [--chunks 40] [--llama BIN] [--scratch DIR]
#                    [--threads 2] [--walk] [--markdown] [TAMIS]
#
#   TAMIS      the program (default: build/release/tamis of this repository)
#   --data     the text that both sides calibrate on: the first --samples sequences of 512 tokens
#   --eval     the text that `tamis eval` measures on, in float32: --chunks windows of 512, second halves, base: the folder
#   --walk     a walk over the calibration text for every type, quantized inputs flowing on, instead of the statistics of one
#              for all; slower by minutes per type
#   --llama    a folder with llama-imatrix and llama-quantize (default: where tests/interop/run.sh --setup builds them);
#              without them no peer, and importances come from tamis
#   --scratch  where files are written, one at a time, and results.jsonl, which grows line by line: a run that was stopped
#              goes on from there (default: tamis-quality in $TMPDIR or /tmp)
#
# Types that a method does not fit are left out. README.md says how to read the table; docs/quality.md has one.
# Exit: 0 done; 1 wrong usage, or a program is missing or failed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
program=$here/../build/release/tamis
scratch=${TMPDIR:-/tmp}/tamis-quality
llama=
options=()
# shellcheck source=/dev/null
. "$here/common.sh"
arguments "scratch llama" "model data eval types methods samples chunks threads walk= markdown=" "$@"

llama=${llama:-$(peer llama-build/bin)}
if [ -x "$llama/llama-imatrix" ] && [ -x "$llama/llama-quantize" ]; then
  options+=(--llama "$llama")
else
  echo "bench/quality.sh: no llama-imatrix and llama-quantize in $llama: no peer (tests/interop/run.sh --setup builds them)" >&2
fi
if [ ! -x "$program" ]; then
  fail "no tamis at $program: build it, or name it"
fi

mkdir -p "$scratch"
exec python3 -B "$here/quality.py" --tamis "$program" --scratch "$scratch" "${options[@]}"
