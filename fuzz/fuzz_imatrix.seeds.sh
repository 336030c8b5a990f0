#!/bin/sh
# fuzz_imatrix.seeds.sh SEEDS CORPUS GOLDEN: what llama-imatrix wrote, and the bad files.
set -eu
cp "$2"/imatrix/* "$3"/imatrix/pebble.* "$1"
