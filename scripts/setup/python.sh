# The Python environment for setup.sh --python: versions pinned in python.txt, whole
# dependency closure included, so nothing is left to the day on which it runs.
# shellcheck shell=bash disable=SC2154

setup_python() {
    local home=$cache/python pins base python
    pins=$(digest sha256 <"$scripts/setup/python.txt")
    if python_believed "$home" "$pins"; then
        say "Python with PyTorch $torch_version is ready: $home"
        return
    fi
    take_lock
    if ! python_believed "$home" "$pins" && ! adopt_python "$home" "$pins"; then
        # A virtual environment cannot be moved, so it is made under its final name, which
        # nothing leads to before the last step.
        base=$cache/python-${pins:0:12}
        require_platform
        require_pip
        [[ -L $home || ! -e $home ]] || fail "$home was not made by this script and differs from scripts/setup/python.txt." \
            "Move it away and run this again."
        if ! python_believed "$base" "$pins"; then
            python=$(suitable_python)
            require_space 8500 "the Python environment"
            make_python "$base" "$pins" "$python"
        fi
        ln -sfn -- "$base" "$home.new.$$"
        mv -T -- "$home.new.$$" "$home"
    fi
    drop_lock
    say "Python with PyTorch $torch_version is ready: $home"
}

python_believed() { [[ -x $1/bin/python && -f $1/.complete && $(<"$1/.complete") == "$2" ]]; }

# An environment made by hand is as good when every pinned package has its version.
adopt_python() {
    [[ -x $1/bin/python ]] || return 1
    "$1/bin/python" - "$scripts/setup/python.txt" <<'PYTHON' || return 1
import importlib.metadata, sys
for line in open(sys.argv[1]):
    name, pinned, version = line.split("#")[0].strip().partition("==")
    if pinned and importlib.metadata.version(name) != version:
        sys.exit(f"{name} {importlib.metadata.version(name)} instead of {version}")
PYTHON
    printf '%s\n' "$2" >"$1/.complete.new"
    mv -- "$1/.complete.new" "$1/.complete"
}

# The pinned numpy and SciPy need Python 3.11; PyTorch 2.11.0 has wheels up to 3.14.
suitable_python() {
    local candidate
    for candidate in python3 python3.11 python3.12 python3.13 python3.14; do
        if have "$candidate" && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
            say "$candidate"
            return
        fi
    done
    fail "the Python environment needs Python 3.11 to 3.14; python3 is $(python3 -c 'import platform; print(platform.python_version())')." \
        "Install one of them beside it, for instance python3.12 with python3.12-venv."
}

make_python() {
    local home=$1 pins=$2 python=$3
    local -a source=(--no-cache-dir)
    if [[ -n ${FLATNCE_WHEELS-} ]]; then source=(--no-index --find-links "$FLATNCE_WHEELS"); fi
    rm -rf -- "$home"
    unfinished+=("$home")
    say "Making a Python environment in $home (2.6 GB to fetch)"
    interruptible "$python" -m venv "$home" || fail "$python could not make a virtual environment." \
        "Debian, Ubuntu: sudo apt install python3-venv"
    mkdir -- "$home/tmp"
    TMPDIR=$home/tmp interruptible "$home/bin/python" -m pip --disable-pip-version-check install "${pip_loudness[@]}" \
        --no-deps --only-binary=:all: "${source[@]}" -r "$scripts/setup/python.txt" ||
        pip_failed "the Python packages could not be installed" "FLATNCE_WHEELS=DIR with every wheel of scripts/setup/python.txt."
    rm -rf -- "$home/tmp"
    interruptible "$home/bin/python" -m pip --disable-pip-version-check check ||
        fail "the pinned packages do not fit this Python together; pip's message stands above."
    interruptible sync -f "$home"
    printf '%s\n' "$pins" >"$home/.complete"
    unfinished=()
}
