# libtorch for setup.sh: the caller's own, the one already linked, or a set of wheels.
# shellcheck shell=bash disable=SC2015,SC2154

torch_version=2.11.0

setup_libtorch() {
    # Cargo itself sets LIBTORCH to the link (.cargo/config.toml); that names no choice.
    if [[ ${LIBTORCH-} == "$link" ]]; then unset LIBTORCH; fi
    if [[ -n ${LIBTORCH_USE_PYTORCH+set} ]]; then
        refuse_set_with LIBTORCH_USE_PYTORCH
        use_pytorch
    elif [[ -n ${LIBTORCH-} ]]; then
        refuse_set_with LIBTORCH
        use_own
    else
        local name=${set_wanted:-$(linked_set)}
        if [[ -z $name ]] && why_not_libtorch "$link" >/dev/null; then
            # Somebody's own, linked by an earlier run.
            say "libtorch $torch_version is ready: $(readlink -f -- "$link")"
        else
            install_set "${name:-cpu}"
        fi
    fi
}

refuse_set_with() {
    [[ -z $set_wanted ]] || fail "$1 is set, and --$set_wanted asks for another libtorch." "Unset $1 or leave --$set_wanted out."
}

use_own() {
    [[ $LIBTORCH == /* ]] || fail "LIBTORCH=$LIBTORCH is a relative path; cargo reads it in other directories." \
        "Set it to an absolute path."
    local why
    why=$(why_not_libtorch "$LIBTORCH") ||
        fail "LIBTORCH=$LIBTORCH: $why" "Set LIBTORCH to a libtorch $torch_version, or unset it to have one fetched."
    link_to "$(readlink -f -- "$LIBTORCH")"
    say_cuda_part "FLATNCE_CUDA_INCLUDE=/path/to/cuda-13/include cargo build --release"
}

use_pytorch() {
    # torch-sys asks the same interpreter.
    local python=python3 found why
    if [[ -n ${VIRTUAL_ENV-} ]]; then python=python; fi
    have "$python" || fail "LIBTORCH_USE_PYTORCH is set, but $python was not found."
    # find_spec does not import torch, which would take seconds.
    found=$("$python" -c '
import importlib.util, os
spec = importlib.util.find_spec("torch")
print(os.path.dirname(spec.origin) if spec and spec.origin else "")') || found=
    [[ -n $found ]] || fail "LIBTORCH_USE_PYTORCH is set, but $(command -v "$python") has no torch." \
        "$python -m pip install torch==$torch_version, or unset LIBTORCH_USE_PYTORCH to have libtorch fetched."
    why=$(why_not_libtorch "$found") || fail "LIBTORCH_USE_PYTORCH: $found: $why" \
        "$python -m pip install torch==$torch_version, or unset LIBTORCH_USE_PYTORCH to have libtorch fetched."
    link_to "$(readlink -f -- "$found")"
    say_cuda_part "$python -m pip install $cuda_headers, then build"
}

# The program's CUDA part needs headers that are in our sets and seldom beside another libtorch.
# build.rs looks in the same places.
cuda_headers="nvidia-cuda-runtime==13.0.96 nvidia-cuda-crt==13.0.88"
say_cuda_part() {
    local place target
    target=$(readlink -f -- "$link")
    [[ -z ${FLATNCE_CUDA_INCLUDE-} ]] || return 0
    for place in "$target/include-cuda" "${target%/*}/nvidia/cu13/include" /usr/local/cuda/include; do
        if [[ -f $place/cuda.h && -f $place/cuda_runtime.h && -f $place/crt/host_defines.h ]]; then return; fi
    done
    say "CUDA's headers are not beside it: the program will be built without its CUDA part, which trains on GPUs with" \
        "CUDA graphs, own kernels and several processes. To have it: $1"
}

# Prints why a directory is no libtorch of the right version, and fails; or says nothing.
why_not_libtorch() {
    local file version
    [[ -d $1 ]] || { say "there is no such directory."; return 1; }
    for file in lib/libtorch_cpu.so lib/libtorch.so lib/libc10.so include/torch/csrc/api/include/torch/all.h; do
        [[ -e $1/$file ]] || { say "$file is missing."; return 1; }
    done
    version=$(version_of "$1")
    if [[ -z $version ]]; then
        warn "$1 does not say its version; it must be $torch_version."
    elif [[ $version != "$torch_version" ]]; then
        say "it is version $version; the bindings need exactly $torch_version."
        return 1
    fi
}

version_of() {
    local version header=$1/include/torch/headeronly/version.h
    if [[ -f $1/build-version ]]; then
        version=$(head -n 1 -- "$1/build-version")
        say "${version%%+*}"
    elif [[ -f $header ]]; then
        awk '/^#define TORCH_VERSION_(MAJOR|MINOR|PATCH) / { v = v (v == "" ? "" : ".") $3 } END { print v }' "$header"
    fi
}

# The sets that this script installs: where they lie, and which part is the libtorch.
home_of() { say "$cache/libtorch-$torch_version-$1"; }
libtorch_of() {
    case $1 in
        cpu) home_of cpu ;;
        cuda) say "$(home_of cuda)/torch" ;; # beside nvidia/, where the rpaths of the wheels look
    esac
}
# The set that .libtorch leads to, whole or not; nothing for another libtorch.
linked_set() {
    local name target
    target=$(readlink -m -- "$link")
    for name in cpu cuda; do
        [[ $target != "$(readlink -m -- "$(libtorch_of "$name")")" ]] || say "$name"
    done
}

# A set is believed when its stamp names today's pins and every library still has the
# size that was written down when all of them were there.
believed() {
    local home stamp
    home=$(home_of "$1") stamp=$home/.complete
    [[ -f $stamp && $(head -n 1 -- "$stamp") == "$(pins_of "$1")" ]] || return 1
    [[ $(tail -n +2 -- "$stamp") == "$(sizes_in "$home")" ]]
}
pins_of() { cat -- "$scripts/setup/libtorch-$1.txt" "$scripts/setup/unpack.py" | digest sha256; }
sizes_in() { (cd -- "$1" && find . -name '*.so*' -type f -printf '%p %s\n' | LC_ALL=C sort); }

install_set() {
    local name=$1 home
    home=$(home_of "$name")
    if believed "$name"; then
        link_to "$(readlink -f -- "$(libtorch_of "$name")")"
        return
    fi
    require_platform
    require_pip
    take_lock
    if ! believed "$name"; then # another set-up may have finished while this one waited
        local -A megabytes=([cpu]=600 [cuda]=4000)
        if [[ -z ${FLATNCE_WHEELS-} ]]; then megabytes=([cpu]=1300 [cuda]=6700); fi
        require_space "${megabytes[$name]}" "the $name set"
        unpack_set "$name" "$home"
    fi
    drop_lock
    link_to "$(readlink -f -- "$(libtorch_of "$name")")"
}

unpack_set() {
    local name=$1 home=$2 partial=$2.partial store=$cache/wheels requirement wheel
    local -a wheels=()
    rm -rf -- "$partial" "$home.broken" "$store"/tmp.*
    unfinished+=("$partial")
    mkdir -- "$partial"
    while read -r requirement; do
        [[ -n $requirement && $requirement != \#* ]] || continue
        wheel=$(find_wheel "$requirement" "${FLATNCE_WHEELS:-$store}")
        if [[ -z $wheel ]]; then
            [[ -z ${FLATNCE_WHEELS-} ]] || fail "FLATNCE_WHEELS=$FLATNCE_WHEELS holds no wheel of ${requirement%% *} with the SHA-256" \
                "${requirement##*:}. On a machine with a network:" "  $(download_line "$name")"
            fetch_wheel "$requirement" "$name" "$store"
            wheel=$(find_wheel "$requirement" "$store")
            [[ -n $wheel ]] || fail "pip left no wheel of ${requirement%% *} with the pinned SHA-256 in $store."
        fi
        wheels+=("$wheel")
    done <"$scripts/setup/libtorch-$name.txt"
    say "Unpacking libtorch $torch_version ($name) into $home"
    interruptible python3 "$scripts/setup/unpack.py" "$name" "$torch_version" "$partial" "${wheels[@]}" ||
        fail "the wheels could not be unpacked into $partial." "Is the disk full? $(df -Ph -- "$cache" | awk 'NR == 2 { print $4 " free" }')"
    { pins_of "$name" && sizes_in "$partial"; } >"$partial/.complete"
    # On the disk before it has its name: a power cut must not leave empty files that are believed.
    interruptible sync -f "$partial"
    if [[ -e $home ]]; then mv -T -- "$home" "$home.broken"; fi
    mv -T -- "$partial" "$home"
    rm -rf -- "$home.broken"
    [[ ${FLATNCE_KEEP_DOWNLOADS-} == 1 ]] || rm -rf -- "$store"
}

# find_wheel "NAME==VERSION --hash=sha256:HEX" DIR: the wheel with exactly these bytes, or nothing.
find_wheel() {
    local file stem=${1%% *}
    stem=${stem//-/_}
    for file in "$2/${stem/==/-}"-*.whl; do
        if [[ -f $file && $(digest sha256 <"$file") == "${1##*:}" ]]; then
            say "$file"
            return
        fi
    done
}

# Any python3 fetches the CPython 3.11 wheels. pip before 24 wants every manylinux tag named.
pip_selection=(--no-deps --only-binary=:all: --python-version 311 --implementation cp --platform manylinux2014_x86_64)
for tag in 28 27 25 18 17 12 5; do pip_selection+=(--platform "manylinux_2_${tag}_x86_64"); done
unset tag

# The command that fetches every wheel of a set, for a machine that has a network.
download_line() {
    say "python3 -m pip download ${pip_selection[*]} -d DIR -r scripts/setup/libtorch-$1.txt"
}

fetch_wheel() {
    local requirement=$1 name=$2 store=$3 tmp=$3/tmp.$$
    unfinished+=("$tmp")
    rm -rf -- "$tmp"
    mkdir -p -- "$tmp"
    printf '%s\n' "$requirement" >"$tmp/requirement.txt"
    say "Fetching ${requirement%% *}"
    # pip's own temporary files lie on the disk whose room was checked; its cache would
    # keep every wheel a second time.
    TMPDIR=$tmp interruptible python3 -m pip --disable-pip-version-check --no-cache-dir download "${pip_loudness[@]}" \
        "${pip_selection[@]}" --require-hashes -d "$tmp" -r "$tmp/requirement.txt" ||
        pip_failed "${requirement%% *} could not be fetched" \
            "fetch the wheels elsewhere and name their directory with FLATNCE_WHEELS:" "  $(download_line "$name")"
    mv -- "$tmp"/*.whl "$store/"
    rm -rf -- "$tmp"
}

# Replaces the link in one step. What was built against another libtorch is stale, and
# cargo cannot see that behind an unchanged link.
link_to() {
    local target=$1 before old_link
    [[ -L $link || ! -e $link ]] || fail "$link is not a link; move it away and run this again."
    before=$(readlink -f -- "$link" || true)
    if [[ $before != "$target" ]]; then
        old_link=$(readlink -- "$link" || true)
        ln -sfn -- "$target" "$link.new.$$"
        mv -T -- "$link.new.$$" "$link"
        if [[ -n $old_link && -f $root/Cargo.toml ]]; then
            (cd -- "$root" && cargo clean --quiet --offline --release -p torch-sys -p flatnce 2>/dev/null &&
                cargo clean --quiet --offline -p torch-sys -p flatnce 2>/dev/null) ||
                warn "libtorch changed: run 'cargo clean' before the next build."
        fi
    fi
    say "libtorch $torch_version is ready: $target"
}
