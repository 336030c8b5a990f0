#!/bin/sh
# Sets up, builds, and runs all tests. An argument names another preset of CMakePresets.json (debug, asan, tsan, clang).
set -eu
cd "$(dirname "$0")/.."
preset=${1:-release}
scripts/packages.sh gcc cmake ninja-build pkg-config libc6-dev libjansson-dev libxxhash-dev libpcre2-dev libedit-dev libcmocka-dev libssl-dev
if [ "$preset" = clang ]; then scripts/packages.sh clang; fi
cmake --preset "$preset" -DBUILD_TESTING=ON >/dev/null
cmake --build --preset "$preset"
log=build/$preset/tests.log
status=0
ctest --preset "$preset" --verbose >"$log" 2>&1 || status=$?
if [ "$status" != 0 ]; then grep -vE '^[0-9]+: \[( RUN|       OK)' "$log" | tail -n 200; fi
# Every single test of every program, counted; skipped ones are shown by name.
sed -nE 's/^[0-9]+: \[  SKIPPED \] ([a-z0-9_]+)$/skipped: \1/p' "$log" | sort -u
count() { grep -cE "^[0-9]+: \[ *$1 *\] [a-z0-9_]+" "$log" || true; }
if [ "$status" != 0 ]; then grep -E -A 4 'FAILED|Sanitizer|Assertion' "$log" | grep -vE '\[  (PASSED|FAILED)  \] [0-9]+ test' | tail -n 40; fi
grep -E 'tests passed|tests failed' "$log" || true
# cmocka prints OK and SKIPPED once per test, FAILED once in place and once in its summary.
failed=$(grep -cE '^[0-9]+: \[  FAILED  \] [a-z0-9_]+$' "$log" || true)
skipped=$(sed -nE 's/^[0-9]+: \[  SKIPPED \] ([a-z0-9_]+)$/\1/p' "$log" | sort -u | wc -l)
echo "$(count OK) passed, $((failed / 2)) failed, $skipped skipped"
exit "$status"
