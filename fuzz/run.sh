#!/bin/sh
# fuzz/run.sh SECONDS [BUILD]: runs every fuzz target that long and stops at the first finding. BUILD is the build
# folder (build/fuzz: `cmake --preset fuzz && cmake --build --preset fuzz`). Seeds are the corpus of bad files and the
# golden files; what the fuzzers learn stays in BUILD/fuzz/learned for the next run, findings in BUILD/fuzz/findings.
set -eu
if [ $# -lt 1 ]; then
    sed -n '2,4s/^# //p' "$0"
    exit 1
fi
seconds=$1
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "${2:-$here/../build/fuzz}" && pwd)/fuzz
golden=$here/../tests/golden
seeds=$(mktemp -d "${TMPDIR:-/tmp}/tamis-seeds-XXXXXX")
trap 'rm -rf "$seeds"' EXIT
trap 'exit 1' INT TERM
mkdir -p "$build/learned" "$build/findings"

"$build/fuzz_seeds" "$seeds/corpus"

# Copies files of at most 64 KiB (longer ones only slow the fuzzer down) to the seeds of a target.
seed() {
    name=$1
    shift
    mkdir -p "$seeds/$name"
    find "$@" -type f -size -64k 2> /dev/null | while read -r file; do
        cp "$file" "$seeds/$name/$(echo "$file" | cksum | cut -d ' ' -f 1)"
    done
}

# The headers of large files with no data behind them are seeds too: they are refused late.
headers() {
    mkdir -p "$seeds/$1"
    find "$golden" -name '*.safetensors' 2> /dev/null | while read -r file; do
        head -c 20000 "$file" > "$seeds/$1/header-$(echo "$file" | cksum | cut -d ' ' -f 1)"
    done
}

for target in "$build"/fuzz_*; do
    name=$(basename "$target")
    if [ ! -x "$target" ] || [ ! -f "$target" ] || [ "$name" = fuzz_seeds ]; then continue; fi
    case $name in
    fuzz_safetensors) seed "$name" "$seeds/corpus/st" "$seeds/corpus/hf/good"; headers "$name" ;;
    fuzz_gguf) seed "$name" "$seeds/corpus/gguf" ;;
    fuzz_json_config) seed "$name" "$seeds/corpus/hf" "$golden" -name '*.json' ;;
    fuzz_hf_index) seed "$name" "$seeds/corpus/hf" "$golden" -name '*.index.json' ;;
    *) # a target may bring a script that fills the folder given to it
        mkdir -p "$seeds/$name"
        if [ -x "$here/$name.seeds.sh" ]; then "$here/$name.seeds.sh" "$seeds/$name" "$seeds/corpus" "$golden"; fi ;;
    esac
    mkdir -p "$build/learned/$name"
    echo "== $name, $seconds s, $(find "$seeds/$name" -type f | wc -l) seeds"
    "$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="$build/findings/$name-" "$build/learned/$name" "$seeds/$name" > "$build/$name.log" 2>&1 || {
        tail -n 40 "$build/$name.log"
        echo "== $name: a finding, kept in $build/findings"
        exit 1
    }
    grep -E 'stat::(number_of_executed_units|peak_rss_mb)|^Done' "$build/$name.log" || true
done
