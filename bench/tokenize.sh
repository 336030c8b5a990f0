#!/usr/bin/env bash
# Times tamis's tokenizers against the library tokenizers on one thread, and compares their ids.
#
#   bench/tokenize.sh [--scratch DIR] [--models FOLDER,...] [--data TEXT] [--repetitions 5] [--json] [LIBTAMIS]
#
#   LIBTAMIS   the static library to time (default: build/release/libtamis.a of this repository)
#   --scratch  where the small program is built (default: tamis-bench in $TMPDIR or /tmp)
#   --models   folders with a tokenizer.json (default: models/pebble)
#   --data     a text (default: the two of models/pebble, 0.4 MB together)
#
# A Python that has the library tokenizers is taken from PYTHON, or from where tests/interop/run.sh --setup puts one
# (INTEROP_SCRATCH if it was given another --scratch). README.md says how to read the table.
# Exit: 0 done, all ids equal; 1 wrong usage, something is missing, or ids differ.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
program=$here/../build/release/libtamis.a
scratch=${TMPDIR:-/tmp}/tamis-bench
models=$here/../models/pebble
data=
options=()
# shellcheck source=/dev/null
. "$here/common.sh"
arguments "scratch models data" "repetitions" "$@"

python=${PYTHON:-$(peer venv/bin/python)}
if ! "$python" -c 'import tokenizers' 2>/dev/null; then
  fail "$python has no library tokenizers: set PYTHON, or run tests/interop/run.sh --setup"
fi
if [ ! -f "$program" ]; then
  fail "no libtamis at $program: build it, or name it"
fi

mkdir -p "$scratch"
if [ -z "$data" ]; then
  data=$scratch/texts.txt
  cat "$here/../models/pebble/calib.txt" "$here/../models/pebble/eval.txt" >"$data"
fi
read -r -a libraries <<<"$(pkg-config --libs jansson libxxhash libpcre2-8)"
"${CC:-cc}" -std=c11 -D_GNU_SOURCE -O2 -I"$here/../src" -I"$here/../include" -o "$scratch/tokenize_speed" \
  "$here/tokenize_speed.c" "$program" "${libraries[@]}" -lm -lpthread
exec "$python" -B "$here/tokenize_speed.py" --program "$scratch/tokenize_speed" --data "$data" --models "$models" "${options[@]}"
