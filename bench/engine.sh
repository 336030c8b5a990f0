#!/usr/bin/env bash
# Times tamis bench against llama.cpp's llama-bench: reading a prompt, and making a text token by token.
#
#   bench/engine.sh [--scratch DIR] [--model FILE.gguf] [--types q8_0,...] [--threads 1,2] [--rounds 3] [--prompt 512]
#                   [--text 32] [--json] [TAMIS]
#
#   TAMIS      the program to time (default: build/release/tamis of this repository)
#   --scratch  where models are written: 3 GB (default: tamis-bench in $TMPDIR or /tmp)
#   --model    another float32, F16 or BF16 GGUF file to make the types from
#   --types    default f16,q8_0,q4_0,q4_k_m,q6_k,iq4_xs,iq2_xxs
#
# llama-bench is taken from LLAMA_BENCH, or from where tests/interop/run.sh --setup builds it (INTEROP_SCRATCH if it was
# given another --scratch). README.md says how to read the table.
# Exit: 0 done; 1 wrong usage, or a program is missing or failed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
program=$here/../build/release/tamis
scratch=${TMPDIR:-/tmp}/tamis-bench
model=
options=()
# shellcheck source=/dev/null
. "$here/common.sh"
arguments "scratch model" "types threads rounds prompt text" "$@"

llama_bench=${LLAMA_BENCH:-$(peer llama-build/bin/llama-bench)}
if [ ! -x "$llama_bench" ]; then
  fail "no llama-bench at $llama_bench: set LLAMA_BENCH, or run tests/interop/run.sh --setup"
fi
if [ ! -x "$program" ]; then
  fail "no tamis at $program: build it, or name it"
fi

mkdir -p "$scratch"
if [ -z "$model" ]; then model=$(random_model); fi
exec python3 "$here/engine_speed.py" --tamis "$program" --llama-bench "$llama_bench" --model "$model" --scratch "$scratch" \
  "${options[@]}"
