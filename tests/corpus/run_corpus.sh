#!/bin/sh
# run_corpus.sh TAMIS MAKE_CORPUS: makes the corpus of bad files in a scratch folder and requires that TAMIS meets
# each as corpus.tsv says: the exit code; one line on standard error and none of a sanitizer; the fragment in it (or,
# for `check`, in a finding on standard output); and no message that another file gets as well.
set -u
tamis=$1
make_corpus=$2
work=$(mktemp -d "${TMPDIR:-/tmp}/tamis-corpus-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
corpus=$work/corpus
pebble=$(dirname "$0")/../../models/pebble
bad=0
runs=0
: > "$work/messages"
"$make_corpus" "$corpus" || exit 1

complain() {
    bad=$((bad + 1))
    printf 'FAILED tamis %s %s: %s\n' "$command" "$path" "$1"
    sed 's/^/    stderr: /' "$work/err" | head -n 8
    sed 's/^/    stdout: /' "$work/out" | head -n 8
}

tab=$(printf '\t')
while IFS=$tab read -r path command code fragment; do
    runs=$((runs + 1))
    output=$work/output.gguf
    rm -rf "$output"
    case $command in
    convert) set -- convert "$corpus/$path" -o "$output" ;;
    imatrix) set -- quantize "$pebble" --to q4_k_m --imatrix "$corpus/$path" -o "$output" ;;
    quantize) set -- quantize "$corpus/$path" --to q8_0 -o "$output" ;;
    *) set -- "$command" "$corpus/$path" ;;
    esac
    timeout 60 "$tamis" "$@" > "$work/out" 2> "$work/err" < /dev/null
    got=$?
    if [ "$got" -ne "$code" ]; then
        complain "exit code $got, expected $code"
        continue
    fi
    if grep -q -E 'Sanitizer|runtime error' "$work/err"; then
        complain "a sanitizer spoke up"
        continue
    fi
    [ "$code" -eq 0 ] && continue
    case $command in
    convert | quantize | imatrix)
        if [ -e "$output" ] || [ -e "$output.tamis-partial" ]; then complain "left an output behind"; fi ;;
    esac
    if [ "$command" = check ]; then
        cat "$work/err" "$work/out" > "$work/text"
    else
        cp "$work/err" "$work/text"
        if [ "$(wc -l < "$work/err")" -ne 1 ]; then
            complain "not one line on standard error"
            continue
        fi
    fi
    if ! grep -q -F -- "$fragment" "$work/text"; then
        complain "nothing says '$fragment'"
        continue
    fi
    # The line without what only names the file, for the comparison of all with all.
    line=$(grep -F -- "$fragment" "$work/text" | head -n 1 | awk -v p="$corpus/$path" '
        { while ((i = index($0, p)) > 0) $0 = substr($0, 1, i - 1) "PATH" substr($0, i + length(p)); print }')
    printf '%s\t%s\n' "$path" "$line" >> "$work/messages"
done < "$corpus/corpus.tsv"

# A file that two commands refuse may get the same words from both; two files may not.
sort -u "$work/messages" | awk -F '\t' '
    $2 in first && first[$2] != $1 { print "FAILED " first[$2] " and " $1 " get the same message: " $2; n++ }
    !($2 in first) { first[$2] = $1 }
    END { exit n > 0 }' || bad=$((bad + 1))

echo "$runs runs, $bad failed"
[ "$bad" -eq 0 ]
