#!/usr/bin/env bash
# Checks flatnce against PyTorch on a GPU, then measures both.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'HELP'
Usage: ./scripts/bench_gpu.sh [OPTION...]

Needs a Python with PyTorch 2.11, torchvision and safetensors, and no network. Loss,
gradients, an epoch's losses and exact resuming are checked against PyTorch first; then a
table: CIFAR's shape with res18 (batch 512 and 32), 224 px with res50, the augmentation's
share, how busy the device is. Under 8 minutes on one H100 (planned: not run on one yet).

  --device D     cuda:N (default: cuda:0), or cpu with --smoke
  --binary FILE  this flatnce instead of building one, with the libtorch of that PyTorch
  --measure FILE this benches/measure (target/release/deps/measure-*), with --binary, for the
                 augmentation's share
  --python FILE  this interpreter (default: the one that scripts/setup.sh --python makes if it
                 is there, else python3)
  --json FILE    every number, with the machine and the versions
  --smoke        tiny sizes: whether the script works
  --skip-checks  only measure
HELP
}

. scripts/bench/fail.sh

binary="" measure="" python="" rest=()
while (($#)); do
    case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        --binary | --measure | --python)
            [[ -n ${2:-} ]] || fail "$1 needs a file."
            [[ -x $2 ]] || fail "$1 $2: no such program."
            printf -v "${1#--}" '%s' "$(realpath -s -- "$2")"
            shift
            ;;
        --device | --json)
            [[ -n ${2:-} ]] || fail "$1 needs a value."
            rest+=("$1" "$2")
            shift
            ;;
        --device=* | --json=* | --smoke | --skip-checks) rest+=("$1") ;;
        *) fail "'$1' is no option." "./scripts/bench_gpu.sh --help" ;;
    esac
    shift
done

if [[ -z $python ]]; then
    python=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME}/.cache}/flatnce/python/bin/python
    [[ -x $python ]] || python=$(command -v python3) || fail "python3 is not there." "--python FILE"
fi
"$python" -c 'import numpy, safetensors, torch, torchvision' ||
    fail "$python lacks PyTorch, torchvision, safetensors or NumPy." "--python FILE, or ./scripts/setup.sh --python"
if [[ -z $binary ]]; then
    cargo build --release --quiet >&2
    cargo bench --no-run --quiet --bench measure >&2
else
    export FLATNCE_BINARY=$binary
    # What it was built beside may be on another machine: PyTorch's libtorch is here, with its CUDA part.
    libtorch=$("$python" -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "lib"))')
    export LD_LIBRARY_PATH=$libtorch${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
[[ -z $measure ]] || export FLATNCE_MEASURE=$measure
# cuBLAS wants it for --deterministic, and it costs nothing without.
export CUBLAS_WORKSPACE_CONFIG=:4096:8
begun=$SECONDS
"$python" scripts/bench/gpu.py "${rest[@]}"
printf '\nChecked and measured in %d s.\n' "$((SECONDS - begun))"
