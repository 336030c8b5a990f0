#!/bin/sh
# fuzz_stats.seeds.sh SEEDS CORPUS GOLDEN: statistics of one input with two parts and three columns, with Hessians and
# without.
set -eu
about='{"format":1,"fingerprint":"0123456789abcdef","architecture":"Any","weights":{"a":"q","b":"q","c":"none"}}'

# tensor NAME TYPE SHAPE BYTES: an entry of the header, behind those before it.
tensor() {
    header="$header${header:+,}\"$1\":{\"dtype\":\"$2\",\"shape\":[$3],\"data_offsets\":[$at,$((at + $4))]}"
    at=$((at + $4))
}

for hessians in 0 1; do
    header='' at=0
    tensor q.sum_squares F64 2,3 48
    tensor q.count I64 2 16
    if [ "$hessians" = 1 ]; then
        tensor q.dead I64 2 16
        tensor q.damp F64 2 16
        tensor q.hessian F32 2,6 48
        tensor q.min F32 2,3 24
        tensor q.max F32 2,3 24
    fi
    zeros=$((at - 64))
    tensor tamis.calibration U8 "${#about}" "${#about}"
    n=$((${#header} + 2))
    {
        printf %b "$(printf '\\0%03o\\0%03o\\0\\0\\0\\0\\0\\0' $((n % 256)) $((n / 256)))"
        printf '{%s}' "$header"
        head -c 48 /dev/zero
        printf '\5\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
        head -c "$zeros" /dev/zero
        printf %s "$about"
    } > "$1/hessians-$hessians"
done
