# shellcheck shell=bash
# What both measuring scripts end with when something is wrong.

# fail WHAT [HINT...]
fail() {
    printf 'bench: error: %s\n' "$1" >&2
    shift
    if (($#)); then printf '  %s\n' "$@" >&2; fi
    exit 2
}
