#!/usr/bin/env bash
# Times tamis's encoders and decoders against ggml's, type by type, in one process (codec_speed.c).
#
#   bench/codecs.sh [--scratch DIR] [--types q4_k,q6_k] [--only plain,weighted,decode] [--rows 256] [--repetitions 7]
#                   [--milliseconds 30] [--json] [LIBTAMIS]
#
#   LIBTAMIS        the static library to time (default: build/release/libtamis.a of this repository)
#   --scratch       where the small program is built (default: tamis-bench in $TMPDIR or /tmp)
#   --rows          at most so many rows of 4096 weights; 12 when decoded stay in a core's cache
#   --milliseconds  how long ggml is busy in one repetition
#
# ggml is taken from GGML_LIB (a libggml-base.so), or from where tests/interop/run.sh --setup builds it (INTEROP_SCRATCH
# if it was given another --scratch). TAMIS_CPU=scalar|neon|avx2|avx512 lowers what tamis may use. README.md says how to
# read the table. Exit: 0 done, all bytes equal; 1 wrong usage, something is missing, or bytes differ.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
program=$here/../build/release/libtamis.a
scratch=${TMPDIR:-/tmp}/tamis-bench
options=()
# shellcheck source=/dev/null
. "$here/common.sh"
arguments "scratch" "types only rows repetitions milliseconds" "$@"

ggml=${GGML_LIB:-$(peer llama-build/bin/libggml-base.so)}
if [ ! -f "$ggml" ]; then
  fail "no ggml at $ggml: set GGML_LIB, or run tests/interop/run.sh --setup"
fi
if [ ! -f "$program" ]; then
  fail "no libtamis at $program: build it, or name it"
fi

mkdir -p "$scratch"
read -r -a libraries <<<"$(pkg-config --libs jansson libxxhash)"
"${CC:-cc}" -std=c11 -D_GNU_SOURCE -O2 -I"$here/../src" -I"$here/../include" -o "$scratch/codec_speed" \
  "$here/codec_speed.c" "$program" "${libraries[@]}" -lm -lpthread -ldl
exec "$scratch/codec_speed" "$(realpath "$ggml")" "${options[@]}"
