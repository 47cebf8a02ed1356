#!/usr/bin/env bash
# Kills runs with SIGKILL at random moments, those of pre-training mostly while a
# checkpoint is being written, and checks that every one continues to the bits of a
# run that nobody killed; the same of linear evaluations, fine-tunings,
# embeddings and packs (tests/survive.rs).
#
#   scripts/survive.sh [KILLS [SEED]]      # 100 kills of each, about 8 minutes on 2 cores
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
-h | --help)
    sed -n '2,7s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
esac
export FLATNCE_KILLS="${1:-100}" FLATNCE_KILLS_SEED="${2:-1}"
if ! [[ "$FLATNCE_KILLS" =~ ^[0-9]+$ && "$FLATNCE_KILLS_SEED" =~ ^[0-9]+$ ]]; then
    echo "usage: scripts/survive.sh [KILLS [SEED]]" >&2
    exit 2
fi
./scripts/setup.sh
cargo test --release --quiet --test survive -- --nocapture --test-threads 1 killed
