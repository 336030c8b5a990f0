#!/usr/bin/env bash
# Cross-compiles for aarch64, runs tests of all encoders and decoders under qemu-user, and lets both machines quantize a
# part of models/pebble: the files must be the same, byte for byte. The libraries for aarch64 are unpacked into
# build/aarch64-root; nothing of another architecture is installed.
# usage: test-aarch64.sh [TYPE,TYPE...]: what to quantize to
set -euo pipefail
cd "$(dirname "$0")/.."
types=${1:-q8_0,q4_k_m,iq4_nl,iq3_s,iq2_xs,iq1_s,nf4:dq}
scripts/packages.sh gcc cmake ninja-build pkg-config libc6-dev libjansson-dev libxxhash-dev libpcre2-dev libedit-dev \
    gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user

root=$PWD/build/aarch64-root
if [ ! -e "$root/complete" ]; then
    rm -rf "$root"
    mkdir -p "$root"/apt/lists/partial "$root"/apt/cache/archives/partial "$root"/packages
    : >"$root/apt/status" # apt's own folders, in which nothing is installed and every package is arm64
    apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User="$(id -un)"
        -o Dir::State="$root/apt" -o Dir::State::status="$root/apt/status" -o Dir::Cache="$root/apt/cache")
    "${apt[@]}" update
    (cd "$root/packages" && "${apt[@]}" download libjansson4 libjansson-dev libxxhash0 libxxhash-dev libpcre2-8-0 \
        libpcre2-dev libcmocka0 libcmocka-dev libssl3 libssl-dev)
    for package in "$root"/packages/*.deb; do dpkg-deb -x "$package" "$root"; done
    touch "$root/complete"
fi

cmake --preset release >/dev/null
cmake --build --preset release --target tamis
tests=(codec iq small_types weighted numbers bnb fast)
cmake --preset aarch64 >/dev/null
cmake --build --preset aarch64 --target tamis "${tests[@]/#/test_}"
# Each runs every level itself.
ctest --preset aarch64 -j "$(nproc)" -R "^test_($(IFS='|' && echo "${tests[*]}"))\$"

out=build/aarch64/files
rm -rf "$out"
mkdir -p "$out"
quantize=(quantize models/pebble --prune-layers '1,2,3,4,5' --tensor-type 'token_embd=q8_0'
    --imatrix tests/golden/imatrix/pebble.dat --quiet --to "$types" -o)
build/release/tamis "${quantize[@]}" "$out/x86-64"
for level in scalar neon; do
    TAMIS_CPU=$level qemu-aarch64 -L /usr/aarch64-linux-gnu build/aarch64/tamis "${quantize[@]}" "$out/$level"
done
sums() { (cd "$out/$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum); }
sums x86-64
for level in scalar neon; do diff <(sums x86-64) <(sums "$level"); done
echo "$(sums x86-64 | wc -l) files are the same on x86-64 and on aarch64, scalar and neon"
