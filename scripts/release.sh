#!/usr/bin/env bash
# What users install who have no compiler: a wheel for machines with PyTorch, an archive for those without Python.
# scripts/release/ holds the parts, scripts/python/ the Python package in the wheel.
set -euo pipefail
caller=$PWD
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. scripts/setup/common.sh
script=release

usage() {
    cat <<'HELP'
Usage: ./scripts/release.sh [--out DIR] [--binary FILE] [--quick]

Sets up (scripts/setup.sh), builds, and writes into DIR

  flatnce-VERSION-py3-none-PLATFORM.whl  the program without libtorch, and the Python package flatnce: for environments
                                         that hold PyTorch 2.11 (pip install FILE)
  flatnce-VERSION-PLATFORM.tar.gz        the program with the CPU half of libtorch: for machines without Python,
                                         unpacked anywhere
  SHA256SUMS                             of both

Both hold the licences of what is inside. PLATFORM is the oldest system that has every version of a symbol that the
program asks for: what is built on an older system runs on more of them.

  --out DIR      where they go; target/release-files is the default
  --binary FILE  take this program, built with the libtorch of .libtorch or LIBTORCH; nothing is set up or built
  --quick        compress the archive little, for tests
  --help         this text
HELP
}

out=target/release-files built="" level=9
while [[ $# -gt 0 ]]; do
    case $1 in
        --out | --binary)
            [[ -n ${2-} ]] || fail "$1 wants a value."
            path=$2
            [[ $path == /* ]] || path=$caller/$path
            if [[ $1 == --out ]]; then out=$path; else built=$path; fi
            shift
            ;;
        --quick) level=1 ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            usage >&2
            fail "unknown option '$1'."
            ;;
    esac
    shift
done

have python3 || fail "python3 was not found; it writes the wheel."
have strip && have objdump || fail "strip and objdump were not found." "Debian, Ubuntu: sudo apt install binutils"
[[ -z $built || -f $built ]] || fail "--binary: there is no file $built."

work=$(mktemp -d)
trap 'rm -rf -- "$work"; print_times' EXIT
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null) || SOURCE_DATE_EPOCH=0
# `flatnce --version` says it.
FLATNCE_COMMIT=$(git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null) || FLATNCE_COMMIT=unknown
export SOURCE_DATE_EPOCH FLATNCE_COMMIT

# What was asked of cargo for the program, and what of cargo metadata.
features=(--locked --features parquet)
about_crates() {
    cargo metadata --format-version 1 "${features[@]}" --filter-platform x86_64-unknown-linux-gnu >"$work/crates.json"
}

if [[ -z $built ]]; then
    phase setup ./scripts/setup.sh
    phase build cargo build --release "${features[@]}"
fi
phase crates about_crates
read -r version target < <(python3 -c '
import json, sys

about = json.load(open(sys.argv[1], encoding="utf-8"))
root = next(package for package in about["packages"] if package["id"] == about["resolve"]["root"])
print(root["version"], about["target_directory"])
' "$work/crates.json")
[[ -n $built ]] || built=$target/release/flatnce
libtorch=$(readlink -f -- "${LIBTORCH:-.libtorch}")

# The program, stripped and relocatable; the platform that it needs goes into a file.
program() {
    mkdir -p -- "$out" "$work/bin"
    python3 scripts/release/program.py "$built" "$work/bin/flatnce" | tee -- "$work/platform"
}
phase program program
platform=$(<"$work/platform")
phase licences python3 scripts/release/licences.py "$work/crates.json" "$work/licences"
phase wheel python3 scripts/release/wheel.py "$version" "$platform" "$work/bin/flatnce" scripts/python/flatnce \
    "$work/licences" "$out"

archive=flatnce-$version-$platform
# The libraries that the program is started with, out of libtorch's directory; the system has the others.
libraries() {
    local found
    found=$(LD_LIBRARY_PATH=$libtorch/lib ldd "$work/bin/flatnce") || return 1
    ! grep 'not found' <<<"$found" || { warn "error: $libtorch lacks a library." && return 1; }
    awk -v from="$libtorch/" 'index($3, from) == 1 { print $3 }' <<<"$found"
}
# manylinux_2_35_x86_64: 2.35
glibc_of() {
    local minor=${1#manylinux_2_}
    say "2.${minor%%_*}"
}
unpacked() {
    local tree=$work/$archive found library place
    found=$(libraries) || return 1
    [[ $found == */libtorch_cpu.so* ]] || { warn "error: the program does not start with $libtorch." && return 1; }
    # Of the CPU set, of the CUDA set.
    for place in "$libtorch/licences" "$libtorch/../licences"; do [[ ! -d $place ]] || break; done
    [[ -d $place ]] || { warn "error: $libtorch has no licences; take that of ./scripts/setup.sh --cpu." && return 1; }
    mkdir -p -- "$tree/lib" "$tree/licences" && cp -r -- "$work/bin" "$tree/" &&
        cp -- "$work/licences"/* "$tree/licences/" && cp -r -- "$place" "$tree/licences/libtorch" || return 1
    while read -r library; do
        cp -L -- "$library" "$tree/lib/" || return 1
    done <<<"$found"
    cat >"$tree/README.txt" <<README
flatnce $version: contrastive pre-training of image encoders. bin/flatnce --help lists what it does.

This directory may lie anywhere. The program needs Linux on x86-64 with glibc $(glibc_of "$platform") or newer and
libstdc++. licences/ has the licences of the program, of the crates in it (CRATES.txt) and of libtorch.
README
}
pack() {
    unpacked && tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u+w,go=rX \
        -C "$work" -cf - "$archive" | gzip -n "-$level" >"$out/$archive.tar.gz.partial" &&
        mv -- "$out/$archive.tar.gz.partial" "$out/$archive.tar.gz"
}
phase archive pack
sums() {
    (cd -- "$out" && sha256sum -- "flatnce-$version-py3-none-$platform.whl" "$archive.tar.gz" | tee SHA256SUMS)
}
phase checksums sums
say "$out"
