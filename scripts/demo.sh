#!/bin/sh
# Sets up, builds, and runs the main job on the model in models/pebble: look at it, quantize it into three formats
# from one read, check what was written.
set -eu
cd "$(dirname "$0")/.."
scripts/packages.sh gcc cmake ninja-build pkg-config libc6-dev libjansson-dev libxxhash-dev libpcre2-dev
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
echo "The outputs are in out/. Next: $tamis --help"
