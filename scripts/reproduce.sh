#!/usr/bin/env bash
# The paper's claim, measured: what the batch size does to InfoNCE and to FlatNCE.
#
#   ./scripts/reproduce.sh [--quick | --full] [PART...] [OPTION...]    (--help)
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
exec python3 scripts/study/main.py "$@"
