#!/bin/sh
# fuzz_tokenizer.seeds.sh SEEDS CORPUS GOLDEN: the golden folders' tokenizers, in the form that fuzz_tokenizer.c reads.
set -eu
for folder in "$3"/arch/* "$3"/tokenizer/*/; do
    out=$1/$(basename "$folder")
    for choice in '\000' '\020' '\002' '\006'; do
        [ -f "$folder/tokenizer.model" ] || continue
        { printf %b "$choice"; cat "$folder/tokenizer.model"; printf '\377\376\375\n'; cat "$folder/tokenizer_config.json"; } \
            > "$out-model-$(echo "$choice" | cksum | cut -d ' ' -f 1)"
    done
    for choice in '\001' '\011' '\031'; do
        [ -f "$folder/tokenizer.json" ] || continue
        { printf %b "$choice"; cat "$folder/tokenizer.json"; printf '\377\376\375\n'; cat "$folder/tokenizer_config.json"; } \
            > "$out-json-$(echo "$choice" | cksum | cut -d ' ' -f 1)"
    done
done
