#!/usr/bin/env bash
# Times `tamis eval`, which computes in float32, against llama-perplexity, which computes quantized types in 8 bits.
#
#   bench/eval.sh [--scratch DIR] [--model FOLDER] [--data TEXT] [--types f16,q8_0,q4_k_m] [--threads 2] [--windows 8]
#                 [--repetitions 3] [--json] [TAMIS]
#
#   TAMIS      the program to time (default: build/release/tamis of this repository)
#   --scratch  where the quantized files are written, one at a time (default: tamis-bench in $TMPDIR or /tmp)
#   --model    a folder (default: models/pebble, which is so small that the start of the programs counts)
#   --data     a text (default: eval.txt in the model's folder)
#
# llama-perplexity is taken from LLAMA_PERPLEXITY, or from where tests/interop/run.sh --setup builds it (INTEROP_SCRATCH
# if it was given another --scratch). README.md says how to read the table.
# Exit: 0 done; 1 wrong usage, or a program is missing or failed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
program=$here/../build/release/tamis
scratch=${TMPDIR:-/tmp}/tamis-bench
model=$here/../models/pebble
data=
options=()
# shellcheck source=/dev/null
. "$here/common.sh"
arguments "scratch model data" "types threads windows repetitions" "$@"

llama_perplexity=${LLAMA_PERPLEXITY:-$(peer llama-build/bin/llama-perplexity)}
if [ ! -x "$llama_perplexity" ]; then
  fail "no llama-perplexity at $llama_perplexity: set LLAMA_PERPLEXITY, or run tests/interop/run.sh --setup"
fi
if [ ! -x "$program" ]; then
  fail "no tamis at $program: build it, or name it"
fi
data=${data:-$model/eval.txt}
if [ ! -f "$data" ]; then
  fail "no text at $data: name one with --data"
fi

mkdir -p "$scratch"
"${CC:-cc}" -std=gnu11 -O2 -o "$scratch/measure" "$here/measure.c"
"${CC:-cc}" -std=gnu11 -O3 -march=native -ffp-contract=fast -o "$scratch/peak" "$here/peak.c" -lpthread
exec python3 -B "$here/eval_speed.py" --tamis "$program" --llama-perplexity "$llama_perplexity" --model "$model" --data "$data" \
  --measure "$scratch/measure" --peak "$scratch/peak" --scratch "$scratch" "${options[@]}"
