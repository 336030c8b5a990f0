#!/bin/sh
# fuzz_chat.seeds.sh SEEDS CORPUS GOLDEN: conversations and Jinja texts, in the form that fuzz_chat.c reads.
set -eu
for family in 000 001 002 003 004 005 010 011 012 017 020 024 030; do
    for bits in 000 001 003; do
        printf '%b' "\\0$family\\0${bits} a \\n\\000<think>x</think>\\n b\\000\\0303\\0251<|im_end|>" > "$1/talk-$family-$bits"
    done
done
{ printf '\377'; printf '%s' "{{ '<|im_start|>system\\nYou are Q.<|im_end|>\\n' }}{% if x %}{{ bos_token }}"; } > "$1/chatml"
{ printf '\377'; printf '%s' '<|start_header_id|> <|end_header_id|>\n\n <|eot_id|> | trim'; } > "$1/llama3"
