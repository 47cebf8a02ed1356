#!/usr/bin/env bash
# Makes a fresh clone ready for `cargo build --release`: finds or fetches libtorch
# 2.11.0 and links .libtorch to it. scripts/setup/ holds the parts and the pins.
set -euo pipefail

scripts=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
root=$(dirname -- "$scripts")
# Used by the parts.
# shellcheck disable=SC2034
link=$root/.libtorch
# shellcheck source=setup/common.sh
source "$scripts/setup/common.sh"
# shellcheck source=setup/libtorch.sh
source "$scripts/setup/libtorch.sh"
# shellcheck source=setup/python.sh
source "$scripts/setup/python.sh"

usage() {
    cat <<'HELP'
Usage: ./scripts/setup.sh [--cpu | --cuda] [--python]

Puts libtorch 2.11.0 into the cache (${XDG_CACHE_HOME:-~/.cache}/flatnce), links
.libtorch to it. Afterwards `cargo build --release` and the binary need no
environment variable. Running it again costs nothing.

  --cpu     the CPU set: 531 MB to download, 0.5 GB installed. The default where
            .libtorch does not already lead to a libtorch 2.11.0
  --cuda    the full set with CUDA 13.0: 2.5 GB to download, 3.6 GB installed
  --python  also a Python environment with PyTorch 2.11.0, python/ in the cache:
            what the interchange tests and the comparisons with PyTorch run
            (2.6 GB to download, 5.1 GB installed)
  --help    this text

Environment:
  LIBTORCH=DIR            use the libtorch 2.11.0 in DIR (lib/, include/)
  LIBTORCH_USE_PYTORCH=1  use the libtorch of python3's PyTorch 2.11.0
  FLATNCE_WHEELS=DIR      take the wheels from DIR, not from the network; the
                          SHA-256 of libtorch's is checked all the same
  FLATNCE_KEEP_DOWNLOADS=1
                          keep the wheels of libtorch, in wheels/ of the cache
  PIP_INDEX_URL, HTTPS_PROXY, ...
                          as pip reads them
HELP
}

set_wanted="" python_wanted=""
for argument in "$@"; do
    case $argument in
        --cpu | --cuda)
            [[ -z $set_wanted || $set_wanted == "${argument#--}" ]] || fail "--cpu and --cuda exclude each other."
            set_wanted=${argument#--}
            ;;
        --python) python_wanted=yes ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            usage >&2
            fail "unknown option '$argument'."
            ;;
    esac
done

require_build_tools
setup_libtorch
if [[ -n $python_wanted ]]; then setup_python; fi
