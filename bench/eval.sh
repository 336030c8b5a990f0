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
tamis=$here/../build/release/tamis
scratch=${TMPDIR:-/tmp}/tamis-bench
model=$here/../models/pebble
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
    --types | --threads | --windows | --repetitions) options+=("$1" "${2:?$1 needs a value}"); shift 2 ;;
    --json) options+=("$1"); shift ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "bench/eval.sh: unknown option $1" >&2; exit 1 ;;
    *) tamis=$1; shift ;;
  esac
done

llama_perplexity=${LLAMA_PERPLEXITY:-${INTEROP_SCRATCH:-${TMPDIR:-/tmp}/tamis-peers}/llama-build/bin/llama-perplexity}
if [ ! -x "$llama_perplexity" ]; then
  echo "bench/eval.sh: no llama-perplexity at $llama_perplexity: set LLAMA_PERPLEXITY, or run tests/interop/run.sh --setup" >&2
  exit 1
fi
if [ ! -x "$tamis" ]; then
  echo "bench/eval.sh: no tamis at $tamis: build it, or name it" >&2
  exit 1
fi
data=${data:-$model/eval.txt}
if [ ! -f "$data" ]; then
  echo "bench/eval.sh: no text at $data: name one with --data" >&2
  exit 1
fi

mkdir -p "$scratch"
"${CC:-cc}" -std=gnu11 -O2 -o "$scratch/measure" "$here/measure.c"
"${CC:-cc}" -std=gnu11 -O3 -march=native -ffp-contract=fast -o "$scratch/peak" "$here/peak.c" -lpthread
exec python3 -B "$here/eval_speed.py" --tamis "$tamis" --llama-perplexity "$llama_perplexity" --model "$model" --data "$data" \
  --measure "$scratch/measure" --peak "$scratch/peak" --scratch "$scratch" "${options[@]}"
