#!/usr/bin/env bash
# Every check of the project, and what the CI calls. All phases build the release profile
# with the same flags, so the C++ of torch-sys is compiled once (about 4 minutes).
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'HELP'
Usage: ./scripts/test.sh [--without-python]

Sets up, then formatting, clippy, documentation, build and tests, each without a
warning.

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
            printf "test: error: unknown option '%s'.\n" "$argument" >&2
            exit 1
            ;;
    esac
done

times=()
# phase NAME COMMAND...: the run ends with the first phase that fails.
phase() {
    local name=$1 start=$SECONDS status=0
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    "$@" || status=$?
    times+=("$(printf '%-14s %5d s' "$name" $((SECONDS - start)))")
    if ((status != 0)); then
        times+=("$name FAILED")
        exit "$status"
    fi
}
print_times() {
    local status=$?
    printf '\n'
    if ((${#times[@]})); then printf '%s\n' "${times[@]}"; fi
    if ((status == 0)); then printf 'All checks passed in %d s.\n' "$SECONDS"; fi
    exit "$status"
}
trap print_times EXIT

python_environment() {
    ./scripts/setup.sh --python && return
    printf '%s\n' "test: error: the Python environment is missing, so the interchange tests with PyTorch cannot run." \
        "  ./scripts/test.sh --without-python runs everything else." >&2
    return 1
}

documentation() { RUSTDOCFLAGS=-Dwarnings cargo doc --release --no-deps --locked; }

# RUSTFLAGS=-Dwarnings would compile every dependency again; cargo repeats the warnings of
# what is already built, so reading its output finds them all.
build_without_warnings() {
    local log status=0
    log=$(mktemp)
    cargo build --release --locked --color never 2>&1 | tee "$log" || status=$?
    if ((status == 0)) && grep -q '^warning' "$log"; then
        printf 'test: error: the build has warnings.\n' >&2
        status=1
    fi
    rm -f -- "$log"
    return "$status"
}

phase setup ./scripts/setup.sh
if [[ -n $with_python ]]; then phase python python_environment; fi
phase format cargo fmt --check
phase clippy cargo clippy --release --all-targets --locked -- -D warnings
phase documentation documentation
phase build build_without_warnings
# One thread of libtorch per test: tests run beside each other, and teams that wait for each other cost minutes.
phase test env OMP_NUM_THREADS=1 cargo test --release --locked --no-fail-fast
