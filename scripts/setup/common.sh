# Shared by the scripts: messages, checks of the machine, checksums, phases with their times; for setup.sh also the lock and
# commands that a signal ends.
# shellcheck shell=bash disable=SC2015,SC2034,SC2154

cache=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME}/.cache}/flatnce
# What messages begin with, and the exit status of `fail`.
script=setup failure=1

say() { printf '%s\n' "$*"; }
warn() { printf '%s: %s\n' "$script" "$*" >&2; }
# fail WHAT [HINT...]
fail() {
    warn "error: $1"
    shift
    [[ $# -eq 0 ]] || printf '  %s\n' "$@" >&2
    exit "$failure"
}

have() { command -v "$1" >/dev/null 2>&1; }

# md5|sha256, of standard input
digest() { if have "$1sum"; then "$1sum" | cut -d ' ' -f 1; else openssl dgst "-$1" -r | cut -d ' ' -f 1; fi; }

# The interpreter that setup.sh --python makes.
python=$cache/python/bin/python

# phase NAME COMMAND...: the script ends with the first phase that fails, and at its end tells the time of each. What the
# command says is in $phase_log too until the next phase, where one is named.
times=() phase_log=""
phase() {
    local name=$1 start=$SECONDS status=0
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    if [[ -n $phase_log ]]; then "$@" | tee -- "$phase_log" || status=$?; else "$@" || status=$?; fi
    times+=("$(printf '%-14s %5d s' "$name" $((SECONDS - start)))")
    if ((status != 0)); then
        times+=("$name FAILED")
        exit "$status"
    fi
}
print_times() {
    local status=$?
    [[ -z $phase_log ]] || rm -f -- "$phase_log"
    printf '\n'
    if ((${#times[@]})); then printf '%s\n' "${times[@]}"; fi
    [[ -z ${1-} || $status != 0 ]] || say "$1"
    exit "$status"
}

# What `cargo build` needs beside libtorch, asked for before anything is downloaded.
require_build_tools() {
    have cargo || fail "cargo was not found." "Install Rust 1.89 or newer: https://rustup.rs"
    have "${CC:-cc}" && have "${CXX:-c++}" || fail "no C and C++ compiler was found (${CC:-cc}, ${CXX:-c++})." \
        "Debian, Ubuntu: sudo apt install build-essential   Fedora: sudo dnf install gcc-c++"
}

# The wheels are x86-64 Linux only (glibc 2.28 or newer).
require_platform() {
    local system machine glibc
    system=$(uname -s) machine=$(uname -m)
    local -a hint=("Get libtorch 2.11.0 for this machine (https://pytorch.org, or pip install torch==2.11.0)"
        "and name it: LIBTORCH=/path/to/libtorch ./scripts/setup.sh, or LIBTORCH_USE_PYTORCH=1 ./scripts/setup.sh")
    [[ $system == Linux && $machine == x86_64 ]] ||
        fail "no libtorch is pinned for $system on $machine (only for Linux on x86_64)." "${hint[@]}"
    glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null || true)
    [[ $glibc == glibc\ * ]] || fail "this system has no glibc, which the wheels of libtorch need." "${hint[@]}"
    printf '2.28\n%s\n' "${glibc#glibc }" | sort -CV ||
        fail "libtorch 2.11.0 needs glibc 2.28 or newer; this system has ${glibc#glibc }." "${hint[@]}"
}

require_pip() {
    have python3 || fail "python3 was not found; it fetches and unpacks the wheels." \
        "Debian, Ubuntu: sudo apt install python3 python3-pip   Fedora: sudo dnf install python3-pip"
    [[ -n ${FLATNCE_WHEELS-} ]] ||
        python3 -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("pip"))' 2>/dev/null ||
        fail "python3 has no pip ($(command -v python3))." \
        "Debian, Ubuntu: sudo apt install python3-pip   Fedora: sudo dnf install python3-pip   elsewhere: python3 -m ensurepip"
}

# pip_failed WHAT WITHOUT_A_NETWORK...
pip_failed() {
    fail "$1; pip's message stands above." "Network: is https://pypi.org reachable? pip reads HTTPS_PROXY and PIP_INDEX_URL." \
        "Disk: $(df -Ph -- "$cache" | awk 'NR == 2 { print $4 " free" }') in $cache." "Without a network: $2" "${@:3}"
}

# require_space MEGABYTES WHAT
require_space() {
    local free
    free=$(($(df -Pk -- "$cache" | awk 'NR == 2 { print $4 }') / 1024))
    ((free >= $1)) || fail "not enough room in $cache: $2 needs $1 MB, $free MB are free." \
        "Free some, or name another place: XDG_CACHE_HOME=/a/larger/disk ./scripts/setup.sh (and keep the variable set)."
}

# One set-up at a time: a second one waits, then finds the work done. The kernel drops
# the lock with the process, however that ends; children are started without it.
take_lock() {
    mkdir -p -- "$cache" 2>/dev/null && [[ -w $cache ]] ||
        fail "$cache cannot be written." "Name another place with XDG_CACHE_HOME."
    have flock && have setsid || fail "flock and setsid were not found." "Install util-linux."
    trap 'stop_on_signal 130' INT
    trap 'stop_on_signal 143' TERM HUP
    trap clean_up EXIT
    exec 9>"$cache/.lock"
    if ! flock -n 9; then
        say "Another set-up is running; waiting for it."
        interruptible flock 9
    fi
}

drop_lock() {
    clean_up
    unfinished=()
    trap - INT TERM HUP EXIT
    exec 9>&-
}

# Half-made things, removed however the script ends. After SIGKILL they stay: nobody
# believes them, and the next run starts by removing them.
unfinished=()
child=
clean_up() {
    local path
    for path in ${unfinished[@]+"${unfinished[@]}"}; do rm -rf -- "$path"; done
}

stop_on_signal() {
    if [[ -n $child ]]; then
        kill -TERM -- "-$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    fi
    warn "stopped. Nothing half-made is left; whole downloads are kept for the next run."
    exit "$1"
}

# Runs a command so that a signal ends it now, not when the command is done. It gets a
# process group of its own, because python3 may be a wrapper (pyenv) around the real one.
interruptible() {
    local status=0
    if [[ $1 == flock ]]; then
        setsid "$@" &
    else
        setsid "$@" 9>&- &
    fi
    child=$!
    wait "$child" || status=$?
    child=
    return "$status"
}

# pip shows its progress on a terminal, and only its errors elsewhere.
if [[ -t 1 ]]; then pip_loudness=(--progress-bar on); else pip_loudness=(--quiet); fi
