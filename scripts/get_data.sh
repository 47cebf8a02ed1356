#!/usr/bin/env bash
# Fetches a data set into datasets/, in the layout that the program reads
# (datasets/README.md). Checked, resumable, and cheap to run again.
set -euo pipefail

program=${BASH_SOURCE[0]##*/}
scripts=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
root=$(dirname -- "$scripts")
into=$root/datasets
known=(fashion_mnist cifar10 cifar100 stl10 tiny_imagenet)

usage() {
    cat <<HELP
Usage: ./scripts/get_data.sh [--into DIR] [--keep] NAME...

Fetches data sets into datasets/. What is there and complete is left alone; a
broken download is resumed; every archive is checked before it is unpacked.

Names              to download   on disk
  fashion_mnist          31 MB     31 MB   Debian's package, else its S3 bucket
  cifar10               170 MB    184 MB   www.cs.toronto.edu
  cifar100              169 MB    184 MB   www.cs.toronto.edu
  stl10                 2.6 GB    3.1 GB   ai.stanford.edu
  tiny_imagenet         248 MB    480 MB   cs231n.stanford.edu

Options
  --into DIR   put the data below DIR (the program's --data), not datasets/
  --keep       keep the archives, in DIR/.downloads
  --help       this text

Environment
  FLATNCE_MIRROR=URL   fetch the archives, under their own names, from this
                       place only (https://, http:// or file://)

fashion_mnist_mini is inside the program. imagenet, caltech, voc, flower, food
and SUN are fetched by hand: datasets/README.md says from where and what goes
where.
HELP
}

say() { printf '%s\n' "$*"; }
fail() {
    printf '%s: %s\n' "$program" "$*" >&2
    exit 1
}

# The pins: archive, its published MD5, where it comes from, the directory it
# unpacks to. Published by the authors (CIFAR) or checked by torchvision.
archive_of() {
    case $1 in
        cifar10)
            archive=cifar-10-binary.tar.gz md5=c32a1d4ab5d03f1284b67883e8d87530
            place=https://www.cs.toronto.edu/~kriz unpacked=cifar-10-batches-bin
            ;;
        cifar100)
            archive=cifar-100-binary.tar.gz md5=03b5dce01913d631647c71ecec9e9cb8
            place=https://www.cs.toronto.edu/~kriz unpacked=cifar-100-binary
            ;;
        stl10)
            archive=stl10_binary.tar.gz md5=91f7769df0f17e558f3565bffb0c7dfb
            place=http://ai.stanford.edu/~acoates/stl10 unpacked=stl10_binary
            ;;
        tiny_imagenet)
            archive=tiny-imagenet-200.zip md5=90528d7ca1a48142e341f4ef8d21d0de
            place=http://cs231n.stanford.edu unpacked=tiny-imagenet-200
            ;;
    esac
    place=${FLATNCE_MIRROR:-$place}
}

# Fashion-MNIST: SHA-256 of the uncompressed files, because Debian compresses anew.
fashion_place=http://fashion-mnist.s3-website.eu-central-1.amazonaws.com
fashion_files=(
    "train-images-idx3-ubyte c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    "train-labels-idx1-ubyte bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    "t10k-images-idx3-ubyte 5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    "t10k-labels-idx1-ubyte 0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
)

digest() { # md5|sha256, of standard input
    if command -v "$1sum" >/dev/null; then "$1sum" | cut -d' ' -f1; else openssl dgst "-$1" -r | cut -d' ' -f1; fi
}

# Names and sizes of all files of a directory, as one digest: quick even for
# 120,000 files, and different after a file was lost or cut short.
listing() { (cd -- "$1" && find . -type f ! -name '.complete*' -exec ls -ln {} + | awk '{print $5, $NF}' | LC_ALL=C sort | digest md5); }
complete() { [[ -f $1/.complete && $(<"$1/.complete") == "$(listing "$1")" ]]; }

# Downloads $1 to $2, continuing what is there; from the start where what is
# there cannot be continued.
download() {
    transfer "$1" "$2" && return
    [[ $? == 3 && -s $2 ]] || return 1
    say "what was there cannot be continued; once more from the start"
    rm -f -- "$2"
    transfer "$1" "$2"
}

# One attempt, with curl, wget or Python, whichever there is. 3: it cannot be continued.
transfer() {
    if command -v curl >/dev/null; then
        local progress=--progress-bar answer status=0
        [[ -t 2 ]] || progress=--silent
        answer=$(curl --fail --location --continue-at - --retry 3 --connect-timeout 20 --speed-limit 100 \
            --speed-time 60 "$progress" --show-error --write-out '%{http_code}' --output "$2" "$1") || status=$?
        # 33, 36: no ranges, or none left; 416 is the same from a web server.
        [[ $status != 33 && $status != 36 && $answer != 416 ]] || return 3
        return "$((status != 0))"
    elif command -v wget >/dev/null; then
        wget --continue --tries=3 --timeout=60 --output-document="$2" "$1"
    elif command -v python3 >/dev/null; then
        python3 - "$1" "$2" <<'PYTHON'
import os, sys, urllib.request
url, path = sys.argv[1:]
have = os.path.getsize(path) if os.path.exists(path) else 0
request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
try:
    with urllib.request.urlopen(request, timeout=60) as answer:
        resumed = answer.status == 206
        done = have if resumed else 0
        total = done + int(answer.headers.get("Content-Length") or 0)
        with open(path, "ab" if resumed else "wb") as file:
            while block := answer.read(1 << 20):
                file.write(block)
                done += len(block)
                print(f"\r{done >> 20} of {total >> 20} MB", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        sys.exit(1 if total and done < total else 0)
except OSError as error:
    print(f"{url}: {error}", file=sys.stderr)
    sys.exit(3 if getattr(error, "code", None) == 416 else 1)
PYTHON
    else
        fail "curl, wget or python3 is needed to download; install one of them."
    fi
}

# Puts a checked archive at $2 from URL $1 (MD5 $3). A partial download is
# resumed; if the result is wrong it is fetched once more from the start.
fetch() {
    local url=$1 file=$2 sum=$3 part=$2.part resumed
    [[ -f $file && $(digest md5 <"$file") == "$sum" ]] && return
    if [[ -f $file ]]; then
        say "$file is not the archive that is expected (MD5 $sum); it is fetched again."
        rm -f -- "$file"
    fi
    for _ in 1 2; do
        resumed=no
        if [[ -s $part ]]; then
            resumed=yes
            say "resuming $url"
        else
            say "fetching $url"
        fi
        if [[ $resumed == no || $(digest md5 <"$part") != "$sum" ]]; then
            download "$url" "$part" || return 1
        fi
        if [[ $(digest md5 <"$part") == "$sum" ]]; then
            mv -- "$part" "$file"
            return
        fi
        rm -f -- "$part"
        [[ $resumed == yes ]] || break
        say "the resumed download is damaged; once more from the start"
    done
    fail "$url is not what was published: its MD5 should be $sum. Nothing was unpacked. Try again later, or get the archive elsewhere and put it at $file"
}

# Unpacks $1 into the directory $2.
unpack() {
    say "unpacking ${1##*/}"
    case $1 in
        *.tar.gz) tar -xzf "$1" -C "$2" --no-same-owner ;;
        *.zip)
            if command -v unzip >/dev/null; then
                unzip -q "$1" -d "$2"
            elif command -v python3 >/dev/null; then
                python3 -m zipfile -e "$1" "$2"
            else
                fail "unzip or python3 is needed to unpack ${1##*/}; install one of them and run this again."
            fi
            ;;
    esac
}

# Makes the filled directory $1 the data set $2, in one step.
finish() {
    listing "$1" >"$1/.complete.new"
    mv -- "$1/.complete.new" "$1/.complete"
    rm -rf -- "${into:?}/$2"
    mv -- "$1" "$into/$2"
    say "$2 is complete: $into/$2"
}

get_archive() {
    local name=$1 archive md5 place unpacked
    archive_of "$name"
    fetch "$place/$archive" "$downloads/$archive" "$md5" || fail "$place/$archive cannot be reached.
By hand:
  1. download $place/$archive on a machine that reaches it
     (its MD5 is $md5)
  2. put it at $downloads/$archive
  3. run ./scripts/get_data.sh $name again: it checks and unpacks it
What was downloaded so far is kept and resumed."
    unpack "$downloads/$archive" "$work" || fail "$archive could not be unpacked below $into; is the disk full?"
    [[ -d $work/$unpacked ]] || fail "$archive has no directory $unpacked inside; the layout is not the published one."
    mkdir -- "$work/set"
    mv -- "$work/$unpacked" "$work/set/$unpacked"
    finish "$work/set" "$name"
    [[ $keep == yes ]] || rm -f -- "$downloads/$archive"
}

# The four files, from the first source that has them, into $work/source.
fashion_source() {
    local source=$work/source
    mkdir -- "$source"
    if [[ -z ${FLATNCE_MIRROR:-} ]]; then
        if [[ -f /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz ]]; then
            say "taking Debian's installed package dataset-fashion-mnist"
            cp /usr/share/datasets/fashion-mnist/*.gz "$source" && return
        fi
        # Unpacked without installing, so that no root is needed; apt checks its signature.
        if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
            say "fetching Debian's package dataset-fashion-mnist"
            if (cd -- "$source" && debian_package) && dpkg-deb -x "$source"/*.deb "$source"; then
                mv -- "$source"/usr/share/datasets/fashion-mnist/*.gz "$source" && return
            fi
            say "Debian's package cannot be had; trying the place of its authors"
        fi
    fi
    local place=${FLATNCE_MIRROR:-$fashion_place} entry file
    for entry in "${fashion_files[@]}"; do
        file=${entry%% *}.gz
        say "fetching $place/$file"
        # Kept beside the archives, so that a broken download is resumed; checked below.
        download "$place/$file" "$downloads/$file.part" || return 1
        mv -- "$downloads/$file.part" "$source/$file"
    done
}

debian_package() {
    apt-get -q download dataset-fashion-mnist && return
    # Without package lists nothing is found; root may fetch them.
    [[ $(id -u) == 0 ]] && apt-get -q update && apt-get -q download dataset-fashion-mnist
}

get_fashion_mnist() {
    local entry file sum
    fashion_source || fail "Fashion-MNIST cannot be reached.
By hand, one of:
  - on Debian or Ubuntu: apt-get install dataset-fashion-mnist, and run this again
  - download the four files named *-ubyte.gz that
    https://github.com/zalandoresearch/fashion-mnist lists, put them into
    one directory DIR, and run FLATNCE_MIRROR=file://DIR ./scripts/get_data.sh fashion_mnist"
    mkdir -- "$work/set"
    for entry in "${fashion_files[@]}"; do
        file=${entry%% *}.gz sum=${entry##* }
        [[ -f $work/source/$file ]] || fail "$file is missing from what was fetched."
        [[ $(gzip -dc <"$work/source/$file" | digest sha256) == "$sum" ]] ||
            fail "$file is not what was published: the SHA-256 of its content should be $sum. Run this again, or see datasets/README.md."
        mv -- "$work/source/$file" "$work/set/$file"
    done
    finish "$work/set" fashion_mnist
}

names=() keep=no
while (($#)); do
    case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        --keep) keep=yes ;;
        --into)
            (($# > 1)) || { usage >&2 && exit 2; }
            into=$2
            shift
            ;;
        fashion_mnist_mini)
            say "fashion_mnist_mini is inside the program: nothing to fetch."
            exit 0
            ;;
        *)
            # Hyphens as the program's own flags allow.
            name=${1//-/_}
            if [[ $1 == -* || " ${known[*]} " != *" $name "* ]]; then
                printf '%s: nothing is known of "%s"; the names are: %s\n\n' "$program" "$1" "${known[*]}" >&2
                usage >&2
                exit 2
            fi
            names+=("$name")
            ;;
    esac
    shift
done
if ((${#names[@]} == 0)); then
    usage >&2
    exit 2
fi

mkdir -p -- "$into/.downloads"
into=$(cd -- "$into" && pwd -P)
downloads=$into/.downloads
if command -v flock >/dev/null; then
    exec 9>"$downloads/.lock"
    flock -n 9 || fail "another run is fetching into $into; wait for it."
fi
# On the file system of the data, so that the last step is a rename.
work=
trap '[[ -z $work ]] || rm -rf -- "$work"' EXIT
trap 'exit 130' INT TERM
for name in "${names[@]}"; do
    if complete "$into/$name"; then
        say "$name is there and complete: $into/$name"
        continue
    fi
    [[ ! -f $into/$name/.complete ]] || say "$into/$name is damaged: files are missing or changed; it is fetched again"
    if [[ -d $into/$name && ! -f $into/$name/.complete ]]; then
        fail "$into/$name exists but was not made here; move it away, or use it as it is."
    fi
    work=$(mktemp -d "$into/.unpacking.XXXXXX")
    if [[ $name == fashion_mnist ]]; then get_fashion_mnist; else get_archive "$name"; fi
    rm -rf -- "$work"
    work=
done
