#!/usr/bin/env bash
# Every check of the project, and what the CI calls. All phases build the release profile
# with the same flags, so the C++ of torch-sys is compiled once (about 4 minutes).
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. scripts/setup/common.sh
script=test

usage() {
    cat <<'HELP'
Usage: ./scripts/test.sh [--without-python]

Sets up, then formatting, clippy, dependencies, documentation, build and tests, each
without a warning. The dependencies' licences, versions and advisories are checked where
cargo-deny is installed (cargo install cargo-deny --locked), advisories where the network
is there too; else it says that they were skipped.

  --without-python  do not make the Python environment (5 GB). Where none is there, the
                    interchange tests against PyTorch say that they were skipped
  --help            this text
HELP
}

with_python=yes
for argument in "$@"; do
    case $argument in
        --without-python) with_python="" ;;
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

trap 'print_times "All checks passed in $SECONDS s."' EXIT

python_environment() {
    ./scripts/setup.sh --python && return
    warn "error: the Python environment is missing, so the interchange tests with PyTorch cannot run.
  ./scripts/test.sh --without-python runs everything else."
    return 1
}

dependencies() {
    local deny=(cargo deny --offline check --config .deny.toml)
    cargo deny --version >/dev/null 2>&1 || {
        warn "SKIPPED: cargo-deny is not installed (cargo install cargo-deny --locked)"
        return 0
    }
    # It reads what the crates of every system say of themselves.
    cargo fetch --locked || {
        warn "SKIPPED: the dependencies cannot be checked without the network"
        return 0
    }
    "${deny[@]}" licenses bans sources || return 1
    cargo deny fetch || {
        warn "SKIPPED: the advisories cannot be fetched"
        return 0
    }
    "${deny[@]}" advisories
}

documentation() { RUSTDOCFLAGS=-Dwarnings cargo doc --release --no-deps --locked; }

# RUSTFLAGS=-Dwarnings would compile every dependency again; cargo repeats the warnings of
# what is already built, so reading its output finds them all.
build_without_warnings() {
    local said
    said=$(cargo build --release --locked --features parquet --color never 2>&1 | tee /dev/stderr) || return 1
    ! grep -q '^warning' <<<"$said" || { warn "error: the build has warnings." && return 1; }
}

phase setup ./scripts/setup.sh
if [[ -n $with_python ]]; then phase python python_environment; fi
phase format cargo fmt --check
# With what is optional; the documentation is made of the program without it.
phase clippy cargo clippy --release --all-targets --locked --features parquet -- -D warnings
phase dependencies dependencies
phase documentation documentation
phase build build_without_warnings
# One thread of libtorch per test: tests run beside each other, and teams that wait for each other cost minutes.
phase test env OMP_NUM_THREADS=1 cargo test --release --locked --features parquet --no-fail-fast
