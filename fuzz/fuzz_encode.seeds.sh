#!/bin/sh
# fuzz_encode.seeds.sh SEEDS CORPUS GOLDEN: for every type a few hundred floats, with importance weights and without.
set -eu
from=$(find "$3/arch/qwen3" -name '*.safetensors' | head -n 1)
for type in $(seq 0 63); do
    for weighted in 0 1; do
        { printf %b "$(printf '\\0%03o\\0%03o' "$type" "$weighted")"; tail -c 9000 "$from" | head -c 2100; } > "$1/type-$type-$weighted"
    done
done
