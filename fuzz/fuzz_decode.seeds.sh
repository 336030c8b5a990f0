#!/bin/sh
# fuzz_decode.seeds.sh SEEDS CORPUS GOLDEN: for every type some blocks of what stands in a golden file.
set -eu
from=$(find "$3/arch/qwen2_tied" -name '*.safetensors' | head -n 1)
for type in $(seq 0 63); do
    { printf %b "$(printf '\\0%03o\\001\\001' "$type")"; tail -c $((3000 + 5 * type)) "$from" | head -c 2100; } > "$1/type-$type"
done
