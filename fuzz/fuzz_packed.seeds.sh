#!/bin/sh
# fuzz_packed.seeds.sh SEEDS CORPUS GOLDEN: folders whose parts fit together, in the form that fuzz_packed.c reads.
set -eu
# part TYPE DIMS ROWS COLS: three bytes; types 0 u8, 1 i8, 2 f32, 3 f16; TYPE 128: missing
part() { printf %b "$(printf '\\0%03o\\0%03o\\0%03o' $(($1 + ($2 == 2 ? 4 : 0))) "$3" "$4")"; }
# text TEXT: its length in a byte and itself; then some data
text() { printf %b "$(printf '\\0%03o' ${#1})"; printf '%s\001\177\200\077data' "$1"; }
four='{"blocksize":64,"shape":[8,40]}'
nested='{"blocksize":32,"shape":[2,96],"nested_blocksize":4,"nested_offset":0.5}'
{ part 0 2 160 1; part 2 1 5 0; part 2 1 16 0; part 128 1 0 0; part 128 1 0 0; part 128 1 0 0; part 128 1 0 0; part 0 1 0 0
  text "$four"; } > "$1/four"
{ part 0 2 96 1; part 0 1 6 0; part 2 1 16 0; part 2 1 2 0; part 10 1 0 0; part 128 1 0 0; part 128 1 0 0; part 0 1 0 0
  text "$nested"; } > "$1/nested"
{ part 1 2 5 7; part 128 1 0 0; part 128 1 0 0; part 128 1 0 0; part 128 1 0 0; part 2 1 5 0; part 128 1 0 0; part 128 1 0 0
  text ''; } > "$1/eight"
