#!/usr/bin/env bash
# Runs that are killed outright at five random moments each: the same command goes on and gives the bytes of a run that
# nothing disturbed; the model stays as it is.
# usage: killed.sh TAMIS [SEED]; run from the root of the repository
set -euo pipefail
tamis=$(realpath "$1")
RANDOM=${2:-$$}
seed=$RANDOM
RANDOM=$seed
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -r models/pebble "$scratch/pebble"
how=(--data models/pebble/calib.txt --seqlen 64 --samples 16 --threads 1 -q)

fail() {
    echo "FAILED $* (seed $seed)"
    exit 1
}

# five_times NAME OUTPUT COMMAND...: OUTPUT is what the command writes
five_times() {
    local name=$1 output=$2 begin length pid
    shift 2
    begin=$(date +%s%N)
    "$@" || fail "$name: exit $?"
    length=$((($(date +%s%N) - begin) / 1000000))
    mv "$output" "$scratch/whole"
    for ((i = 0; i < 5; i++)); do
        moment=$(((i * 32768 + RANDOM) * length / 163840)) # in the i-th fifth of the run
        "$@" &
        pid=$!
        sleep "$(printf '%d.%03d' $((moment / 1000)) $((moment % 1000)))"
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
        # with its name, but not cleared away: that is the next run's, too
        if [ ! -e "$output" ] || compgen -G "$output.work*" >/dev/null; then "$@" || fail "$name: killed after $moment of $length ms, does not go on: exit $?"; fi
        cmp "$output" "$scratch/whole" || fail "$name: killed after $moment of $length ms: other bytes"
        if compgen -G "$output.work*"; then fail "$name: that is left"; fi
        rm "$output"
    done
    rm "$scratch/whole"
}

five_times calibrate "$scratch/stats" "$tamis" calibrate "$scratch/pebble" -o "$scratch/stats" --keep-hessian --histogram "${how[@]}"
five_times gptq "$scratch/gptq.gguf" "$tamis" quantize "$scratch/pebble" --to q3_k_m --method gptq -o "$scratch/gptq.gguf" "${how[@]}"
"$tamis" calibrate "$scratch/pebble" -o "$scratch/kept" --keep-hessian "${how[@]}"
five_times gptq_of_statistics "$scratch/kept.gguf" "$tamis" quantize "$scratch/pebble" --to q3_k_m --method gptq --stats "$scratch/kept" --threads 1 -q -o "$scratch/kept.gguf"
diff -r models/pebble "$scratch/pebble" || fail 'the model was changed'
left=$(ls "$scratch")
[ "$left" = $'kept\npebble' ] || fail "there is left: $left"
