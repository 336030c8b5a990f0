#!/bin/sh
# Installs a build into a scratch folder and uses it as another program would: pkg-config, header, static library.
set -eu
cd "$(dirname "$0")/.."
build=${1:-build/release}
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT
cmake --install "$build" --prefix "$prefix" >/dev/null
libdir=$(dirname "$(find "$prefix" -name libtamis.a)")
cat >"$prefix/use.c" <<'C'
#include <stdio.h>
#include <tamis/tamis.h>
int main(int argc, char **argv)
{
    struct tms_model *model;
    struct tms_model_info info;
    struct tms_error err;
    if (argc < 2 || tms_model_open(&model, argv[1], &err) != TMS_OK) return 1;
    tms_model_describe(model, &info);
    printf("%s: %llu\n", info.architecture, (unsigned long long)info.n_parameters);
    tms_model_close(model);
    return 0;
}
C
# shellcheck disable=SC2046 # a list of flags
PKG_CONFIG_PATH="$libdir/pkgconfig" cc -std=c11 "$prefix/use.c" -o "$prefix/use" \
    $(PKG_CONFIG_PATH="$libdir/pkgconfig" pkg-config --cflags --libs --static tamis)
[ "$("$prefix/use" models/pebble)" = "Qwen2ForCausalLM: 5773568" ]
"$prefix/bin/tamis" --version
man --warnings=all -l "$prefix/share/man/man1/tamis.1" >/dev/null
bash -n "$prefix/share/bash-completion/completions/tamis"
echo "installed layout: good"
