#!/usr/bin/env bash
# Packs a folder of tests/golden that is large and compresses well into tests/golden/NAME.tar.xz, always the same bytes for
# the same files. The build unpacks it into its own golden/. To change such files: unpack, change, pack again.
# usage: pack-golden.sh NAME [FOLDER]; FOLDER (default: build/release) has golden/NAME
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1
folder=${2:-build/release}/golden
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode='u=rwX,go=rX' -C "$folder" -cf - "$name" |
    xz -9e --threads=1 >"tests/golden/$name.tar.xz"
ls -l "tests/golden/$name.tar.xz"
