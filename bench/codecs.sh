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
library=$here/../build/release/libtamis.a
scratch=${TMPDIR:-/tmp}/tamis-bench
options=()

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

while [ $# -gt 0 ]; do
  case $1 in
    --scratch) scratch=${2:?--scratch needs a folder}; shift 2 ;;
    --types | --only | --rows | --repetitions | --milliseconds) options+=("$1" "${2:?$1 needs a value}"); shift 2 ;;
    --json) options+=("$1"); shift ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "bench/codecs.sh: unknown option $1" >&2; exit 1 ;;
    *) library=$1; shift ;;
  esac
done

ggml=${GGML_LIB:-${INTEROP_SCRATCH:-${TMPDIR:-/tmp}/tamis-peers}/llama-build/bin/libggml-base.so}
if [ ! -f "$ggml" ]; then
  echo "bench/codecs.sh: no ggml at $ggml: set GGML_LIB, or run tests/interop/run.sh --setup" >&2
  exit 1
fi
if [ ! -f "$library" ]; then
  echo "bench/codecs.sh: no libtamis at $library: build it, or name it" >&2
  exit 1
fi

mkdir -p "$scratch"
read -r -a libraries <<<"$(pkg-config --libs jansson libxxhash)"
"${CC:-cc}" -std=c11 -D_GNU_SOURCE -O2 -I"$here/../src" -I"$here/../include" -o "$scratch/codec_speed" \
  "$here/codec_speed.c" "$library" "${libraries[@]}" -lm -lpthread -ldl
exec "$scratch/codec_speed" "$(realpath "$ggml")" "${options[@]}"
