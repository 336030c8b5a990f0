#!/usr/bin/env bash
# What the scripts of this folder share: reading their arguments, and finding peers. Sourced, not run; `here` is this
# folder and `scratch` theirs.
# shellcheck disable=SC2154

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
}

fail() {
  echo "bench/$(basename "$0"): $1" >&2
  exit 1
}

# arguments OWN PASSED "$@": both are words. --NAME VALUE sets the variable NAME if OWN has it, and goes into the array
# `options` if PASSED has it; so does --json, or another flag that PASSED has with an = behind it. What is no option
# becomes `program`.
arguments() {
  local own=" $1 " passed=" $2 json= " name
  shift 2
  while [ $# -gt 0 ]; do
    name=${1#--}
    case $1 in
      -h | --help) usage; exit 0 ;;
      --*)
        if [[ $passed == *" $name= "* ]]; then
          options+=("$1")
          shift
          continue
        fi
        if [[ $own != *" $name "* && $passed != *" $name "* ]]; then fail "unknown option $1"; fi
        if [ $# -lt 2 ]; then fail "$1 needs a value"; fi
        if [[ $own == *" $name "* ]]; then printf -v "$name" %s "$2"; else options+=("$1" "$2"); fi
        shift 2 ;;
      -*) fail "unknown option $1" ;;
      *) # shellcheck disable=SC2034  # of the script that sources this
        program=$1; shift ;;
    esac
  done
}

# Where tests/interop/run.sh --setup puts something.
peer() {
  echo "${INTEROP_SCRATCH:-${TMPDIR:-/tmp}/tamis-peers}/$1"
}

# Where the model of random weights is, written when it is not there.
random_model() {
  local path=$scratch/random-301m.f32.gguf
  if [ ! -f "$path" ]; then
    echo "writing $path" >&2
    "${CC:-cc}" -std=c11 -O2 -o "$scratch/make_model" "$here/make_model.c"
    "$scratch/make_model" "$path.partial"
    mv "$path.partial" "$path"
  fi
  echo "$path"
}
