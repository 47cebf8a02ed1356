#!/usr/bin/env bash
# Measures flatnce against PyTorch and torchvision, in pairs that take turns.
#
#   ./scripts/bench.sh PART [--quick] [--json FILE] [OPTION...]    (--help)
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
exec python3 scripts/bench/main.py "$@"
