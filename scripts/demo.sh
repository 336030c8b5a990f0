#!/bin/sh
# Sets up, builds, and runs the main job on the model in models/pebble: look at it, quantize it into three formats
# from one read, check what was written, measure what was lost, and let source and result speak.
set -eu
cd "$(dirname "$0")/.."
scripts/packages.sh gcc cmake ninja-build pkg-config libc6-dev libjansson-dev libxxhash-dev libpcre2-dev libedit-dev
cmake --preset release -DBUILD_TESTING=OFF >/dev/null
cmake --build --preset release
tamis=build/release/tamis

echo
"$tamis" inspect models/pebble
echo
rm -rf out
"$tamis" quantize models/pebble --to q8_0,q4_k_m,nf4:dq -o out
echo
"$tamis" check out/pebble-q8_0.gguf
"$tamis" check out/pebble-q4_k_m.gguf
"$tamis" check out/pebble-nf4-dq
echo

# A row of the table from what `tamis eval` prints. $1: its name; the others: arguments of eval
row() {
    name=$1
    shift
    figures=$("$tamis" eval "$@" --data models/pebble/eval.txt --ctx 512)
    # in bytes, of which ± has two
    echo "$figures" | LC_ALL=C awk -v name="$name" '
        /^perplexity / && !/of the base/ { perplexity = $2 " ± " $4 }
        /^KL divergence / { divergence = $3 " ± " $5 }
        /^same top token / { top = $4 " %" }
        END { printf "%-8s  %-17s  %-20s  %s\n", name, perplexity, divergence, top }'
}
echo "what was lost, measured on models/pebble/eval.txt in windows of 512, against the source"
printf '%-8s  %-16s  %-19s  %s\n' model perplexity 'KL divergence' 'same top token'
row source models/pebble
row q8_0 out/pebble-q8_0.gguf --base models/pebble
row q4_k_m out/pebble-q4_k_m.gguf --base models/pebble
row nf4:dq out/pebble-nf4-dq --base models/pebble

for model in models/pebble out/pebble-q4_k_m.gguf; do
    printf '\n%s says:\n' "$model"
    "$tamis" run "$model" -p 'The emperor' -n 40 --temp 0 --echo
done
echo
echo "The outputs are in out/. Next: $tamis --help"
