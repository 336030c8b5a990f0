#!/bin/sh
# fuzz_tokenize.seeds.sh SEEDS CORPUS GOLDEN: the golden tokenizers, in the form that fuzz_tokenize.c reads, and texts.
set -eu
for file in "$3"/tokenizers/*/tokenizer.json "$3"/tokenizer/*/tokenizer.json; do
    out=$1/$(basename "$(dirname "$file")")
    { printf '\001'; cat "$file"; printf '\377\376\375\n'; printf 'Hello <s>  wor\303\251ld 12'; } > "$out-json"
done
for file in "$3"/tokenizers/spm-bpe/tokenizer.model "$3"/arch/*/tokenizer.model; do
    out=$1/$(basename "$(dirname "$file")")
    { printf '\000'; cat "$file"; printf '\377\376\375\n'; printf 'Hello <s>  wor\303\251ld 12'; } > "$out-model"
done
{ printf '\020'; cat "$3/tokenizers/unigram.gguf"; printf '\377\376\375\nHello <x>  \357\254\201le \342\221\240 2'; } > "$1/unigram-gguf"
{ printf '\002'; head -c 2000 "$3/tokenizers/pebble.jsonl"; } > "$1/text"
