#!/bin/sh
# clang-tidy over the library and the command line, with the compile commands of a build made by clang.
set -eu
cd "$(dirname "$0")/.."
git ls-files 'src/*.c' 'cli/*.c' | xargs -P "$(nproc)" -n 4 clang-tidy --quiet -p "${1:-build/clang}" 2>/dev/null
