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
tamis=$here/../build/release/tamis
scratch=${TMPDIR:-/tmp}/tamis-bench
model=
options=()

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

while [ $# -gt 0 ]; do
  case $1 in
    --scratch) scratch=${2:?--scratch needs a folder}; shift 2 ;;
    --model) model=${2:?--model needs a file}; shift 2 ;;
    --types | --threads | --rounds | --prompt | --text) options+=("$1" "${2:?$1 needs a value}"); shift 2 ;;
    --json) options+=("$1"); shift ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "bench/engine.sh: unknown option $1" >&2; exit 1 ;;
    *) tamis=$1; shift ;;
  esac
done

llama_bench=${LLAMA_BENCH:-${INTEROP_SCRATCH:-${TMPDIR:-/tmp}/tamis-peers}/llama-build/bin/llama-bench}
if [ ! -x "$llama_bench" ]; then
  echo "bench/engine.sh: no llama-bench at $llama_bench: set LLAMA_BENCH, or run tests/interop/run.sh --setup" >&2
  exit 1
fi
if [ ! -x "$tamis" ]; then
  echo "bench/engine.sh: no tamis at $tamis: build it, or name it" >&2
  exit 1
fi

mkdir -p "$scratch"
if [ -z "$model" ]; then
  model=$scratch/random-301m.f32.gguf
  if [ ! -f "$model" ]; then
    echo "writing $model" >&2
    "${CC:-cc}" -std=c11 -O2 -o "$scratch/make_model" "$here/make_model.c"
    "$scratch/make_model" "$model.partial"
    mv "$model.partial" "$model"
  fi
fi
exec python3 "$here/engine_speed.py" --tamis "$tamis" --llama-bench "$llama_bench" --model "$model" --scratch "$scratch" \
  "${options[@]}"
