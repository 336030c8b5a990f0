#!/usr/bin/env bash
# Times tamis against llama.cpp's llama-quantize on a model of 301 million random weights.
#
#   bench/run.sh [--scratch DIR] [--model FILE.gguf] [--types q8_0,...] [--threads 1,2] [--repetitions 3] [--json] [TAMIS]
#
#   TAMIS      the program to time (default: build/release/tamis of this repository)
#   --scratch  where the model and the outputs are written: 3 GB (default: tamis-bench in $TMPDIR or /tmp)
#   --model    another float32, F16 or BF16 GGUF file
#
# llama-quantize is taken from LLAMA_QUANTIZE, or from where tests/interop/run.sh --setup builds it (INTEROP_SCRATCH if it
# was given another --scratch). README.md says how to read the table.
# Exit: 0 done; 1 wrong usage, or a program is missing or failed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
program=$here/../build/release/tamis
scratch=${TMPDIR:-/tmp}/tamis-bench
model=
options=()
# shellcheck source=/dev/null
. "$here/common.sh"
arguments "scratch model" "types threads repetitions" "$@"

llama_quantize=${LLAMA_QUANTIZE:-$(peer llama-build/bin/llama-quantize)}
if [ ! -x "$llama_quantize" ]; then
  fail "no llama-quantize at $llama_quantize: set LLAMA_QUANTIZE, or run tests/interop/run.sh --setup"
fi
if [ ! -x "$program" ]; then
  fail "no tamis at $program: build it, or name it"
fi

mkdir -p "$scratch"
"${CC:-cc}" -std=gnu11 -O2 -o "$scratch/measure" "$here/measure.c"
if [ -z "$model" ]; then model=$(random_model); fi
exec python3 "$here/quantize_speed.py" --tamis "$program" --llama-quantize "$llama_quantize" --model "$model" \
  --measure "$scratch/measure" --scratch "$scratch" "${options[@]}"
