#!/bin/sh
# fuzz_eval.seeds.sh SEEDS CORPUS GOLDEN: questions, ids and texts, in the form that fuzz_eval.c reads.
set -eu
for choice in '\000' '\004'; do
    name=$1/questions-$(echo "$choice" | cksum | cut -d ' ' -f 1)
    { printf %b "$choice"; printf '{"question": "a", "choices": ["b c", "d"], "answer": 0}\n'; } > "$name-list"
    { printf %b "$choice"; printf '{"question": "a", "A": "b", "B": "\\u00e9", "C": "c", "answer": "b"}\n\n'; } > "$name-letters"
done
for choice in '\001' '\005'; do
    { printf %b "$choice"; printf '1 2,3\n4 5 6 7 8 9 10 11 12 13 14 15 16'; } > "$1/ids-$(echo "$choice" | cksum | cut -d ' ' -f 1)"
done
for choice in '\002' '\003' '\006' '\007'; do
    { printf %b "$choice"; printf 'The emperor <s> was caf\303\251 of the 12 first, and  the last.\n'; } \
        > "$1/text-$(echo "$choice" | cksum | cut -d ' ' -f 1)"
done
