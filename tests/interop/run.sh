#!/usr/bin/env bash
# Compares tamis with the programs that people run today: llama.cpp, transformers with bitsandbytes, safetensors, gguf.
#
#   tests/interop/run.sh [--scratch DIR] [--only NAME[,NAME...]] [--setup] [TAMIS] [-- OPTIONS OF THE PROGRAMS]
#
#   TAMIS       the program under test (default: build/release/tamis of this repository)
#   --scratch   where the peers are put, and found again (default: tamis-peers in $TMPDIR or /tmp)
#   --only      some of: gguf_reads llama_logits bnb_loads safetensors_reads llama_quantize_same imatrix_same
#               tokenizer_same tokenize_same hf_back logits_same eval_same chat_same kv_loss grid_loads
#   --setup     put the peers there and stop
#
# The first run installs the Python packages of requirements.txt (about 5 GB with torch) and builds llama.cpp's tools from
# the source package of llama-cpp-python, with two jobs at low priority: 5 to 15 minutes. Later runs use what is there.
# For people and for the night, not for every push: it needs the network once, and about 4 minutes each time.
# Exit: 0 all held; 1 wrong usage or the peers could not be made; 4 a comparison failed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
scratch=${TMPDIR:-/tmp}/tamis-peers
tamis=$repository/build/release/tamis
programs=(gguf_reads llama_quantize_same imatrix_same options_same tokenizer_same tokenize_same llama_logits safetensors_reads hf_back bnb_loads logits_same eval_same chat_same kv_loss grid_loads)
setup_only=no

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

while [ $# -gt 0 ]; do
  case $1 in
    --scratch) scratch=${2:?--scratch needs a folder}; shift 2 ;;
    --only) IFS=, read -r -a programs <<<"${2:?--only needs names}"; shift 2 ;;
    --setup) setup_only=yes; shift ;;
    -h | --help) usage; exit 0 ;;
    --) shift; break ;;
    -*) echo "run.sh: unknown option $1" >&2; exit 1 ;;
    *) tamis=$1; shift ;;
  esac
done

llama_version=$(sed -n 's/^# llama-cpp-python //p' "$here/requirements.txt")
source_folder=$scratch/llama_cpp_python-$llama_version
build=$scratch/llama-build
python=$scratch/venv/bin/python
tools=(llama-quantize llama-perplexity llama-gguf-split llama-bench llama-imatrix llama-tokenize)

install_packages() {
  [ -x "$python" ] || python3 -m venv "$scratch/venv"
  if ! cmp -s "$here/requirements.txt" "$scratch/installed.txt"; then
    "$python" -m pip install --quiet --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$scratch/installed.txt"
  fi
}

unpack_llama() {
  [ -d "$source_folder" ] && return
  "$python" -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest "$scratch/src" "llama-cpp-python==$llama_version"
  tar -C "$scratch" -xzf "$scratch/src/llama_cpp_python-$llama_version.tar.gz"
}

build_llama() {
  [ -x "$build/bin/${tools[-1]}" ] && return
  cmake -S "$source_folder/vendor/llama.cpp" -B "$build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DGGML_NATIVE=ON \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF \
    >"$scratch/configure.log" 2>&1 || { tail -20 "$scratch/configure.log" >&2; return 1; }
  nice -n 10 cmake --build "$build" --parallel 2 --target "${tools[@]}" >"$scratch/build.log" 2>&1 ||
    { tail -20 "$scratch/build.log" >&2; return 1; }
}

# The Python package alone; it finds the library that was just built through LLAMA_CPP_LIB_PATH.
install_llama_package() {
  LLAMA_CPP_LIB_PATH=$build/bin "$python" -c 'import llama_cpp' 2>/dev/null && return
  CMAKE_ARGS="-DLLAMA_BUILD=OFF -DLLAVA_BUILD=OFF" "$python" -m pip install --quiet --no-deps "$source_folder"
}

mkdir -p "$scratch"
set -E
trap 'echo "run.sh: the peers could not be made in $scratch; the lines above say why" >&2; exit 1' ERR
install_packages
unpack_llama
build_llama
install_llama_package
trap - ERR
set +E
if [ $setup_only = yes ]; then
  echo "peers are in $scratch"
  exit 0
fi
[ -x "$tamis" ] || { echo "run.sh: $tamis: no such program; build tamis or name it" >&2; exit 1; }

failed=()
for program in "${programs[@]}"; do
  [ -f "$here/$program.py" ] || { echo "run.sh: no program $program" >&2; exit 1; }
  LLAMA_CPP_LIB_PATH=$build/bin "$python" -B "$here/$program.py" --tamis "$tamis" --peers "$scratch" "$@" || failed+=("$program")
done
if [ ${#failed[@]} -gt 0 ]; then
  printf '\nFAILED: %s\n' "${failed[*]}"
  exit 4
fi
printf '\nall comparisons held\n'
