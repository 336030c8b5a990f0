#!/bin/sh
# fuzz_grid.seeds.sh SEEDS CORPUS GOLDEN: layers whose parts fit together, in the form that fuzz_grid.c reads.
set -eu
byte() { printf %b "$(printf '\\0%03o' "$1")"; }
# part TYPE ROWS COLS: types 0 i32, 1 f16, 2 bf16, 3 f32, 4 i8, 5 u8, 6 f8, 7 i64; COLS 0: one dimension
part() { byte $(($1 + ($3 > 0 ? 8 : 0))); byte "$2"; byte "$3"; }
none() { for _ in $(seq "$1"); do byte 128; byte 0; byte 0; done; }
# 64 inputs, 32 outputs
{ byte 0; part 0 8 32; part 0 2 4; part 1 2 32; part 0 64 0; none 7; printf '\000\000\000\000'; } > "$1/gptq4"
{ byte 1; part 0 6 32; part 0 1 3; part 1 1 32; none 8; printf data; } > "$1/gptq3"
{ byte 2; part 0 64 4; part 0 2 4; part 1 2 32; none 8; printf data; } > "$1/awq"
# 32 rows of 64; weight_shape's data are those of all
{ byte 3; none 4; part 0 32 8; none 1; part 2 32 2; part 0 4 2; part 7 2 0; none 2
  for _ in 1 2; do printf '\040\000\000\000\000\000\000\000\100\000\000\000\000\000\000\000'; done; } > "$1/words4"
{ byte 5; none 5; part 4 8 32; part 2 8 1; part 4 8 1; none 3; printf data; } > "$1/int8"
{ byte 6; none 5; part 6 8 32; part 2 1 0; none 4; printf data; } > "$1/fp8"
{ byte 7; none 4; part 5 8 16; none 1; part 6 8 2; none 3; part 3 1 0; printf '\000\000\200\077'; } > "$1/nvfp4"
{ byte 7; none 4; part 5 8 16; none 1; part 5 8 1; none 4; printf data; } > "$1/mxfp4"
