#!/usr/bin/env bash
# Fetches a data set into datasets/, in the layout that the program reads
# (datasets/README.md). Checked, resumable, and cheap to run again.
set -euo pipefail

scripts=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
into=$(dirname -- "$scripts")/datasets
known=(fashion_mnist cifar10 cifar100 stl10 tiny_imagenet)
# shellcheck source=setup/common.sh
source "$scripts/setup/common.sh"
script=get_data

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

# The pins: archive, its published MD5, where it comes from, the directory it unpacks to. Published by the authors (CIFAR) or
# checked by torchvision.
pins="
cifar10 cifar-10-binary.tar.gz c32a1d4ab5d03f1284b67883e8d87530 https://www.cs.toronto.edu/~kriz cifar-10-batches-bin
cifar100 cifar-100-binary.tar.gz 03b5dce01913d631647c71ecec9e9cb8 https://www.cs.toronto.edu/~kriz cifar-100-binary
stl10 stl10_binary.tar.gz 91f7769df0f17e558f3565bffb0c7dfb http://ai.stanford.edu/~acoates/stl10 stl10_binary
tiny_imagenet tiny-imagenet-200.zip 90528d7ca1a48142e341f4ef8d21d0de http://cs231n.stanford.edu tiny-imagenet-200
"
# Fashion-MNIST: SHA-256 of the uncompressed files, because Debian compresses anew.
fashion_place=http://fashion-mnist.s3-website.eu-central-1.amazonaws.com
fashion_files="
train-images-idx3-ubyte c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888
train-labels-idx1-ubyte bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9
t10k-images-idx3-ubyte 5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b
t10k-labels-idx1-ubyte 0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34
"

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
    if have curl; then
        local progress=--progress-bar answer status=0
        [[ -t 2 ]] || progress=--silent
        answer=$(curl --fail --location --continue-at - --retry 3 --connect-timeout 20 --speed-limit 100 \
            --speed-time 60 "$progress" --show-error --write-out '%{http_code}' --output "$2" "$1") || status=$?
        # 33, 36: no ranges, or none left; 416 is the same from a web server.
        [[ $status != 33 && $status != 36 && $answer != 416 ]] || return 3
        return "$((status != 0))"
    elif have wget; then
        wget --continue --tries=3 --timeout=60 --output-document="$2" "$1"
    elif have python3; then
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

# What a file is checked by: the MD5 of an archive, or, longer, the SHA-256 of what is packed in it.
sum_of() {
    if [[ ${#2} == 32 ]]; then digest md5 <"$1"; else gzip -dcq <"$1" 2>/dev/null | digest sha256; fi
}
right() { [[ -s $1 && $(sum_of "$1" "$2") == "$2" ]]; }

# Puts a checked file at $2 from URL $1 (checksum $3). A partial download is resumed; if the result is wrong it is fetched once
# more from the start.
fetch() {
    local url=$1 file=$2 sum=$3 part=$2.part resumed
    right "$file" "$sum" && return
    if [[ -f $file ]]; then
        say "$file is not what is expected (checksum $sum); it is fetched again."
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
        right "$part" "$sum" || download "$url" "$part" || return 1
        if right "$part" "$sum"; then
            mv -- "$part" "$file"
            return
        fi
        rm -f -- "$part"
        [[ $resumed == yes ]] || break
        say "the resumed download is damaged; once more from the start"
    done
    fail "$url is not what was published: its $([[ ${#sum} == 32 ]] && say MD5 || say "content's SHA-256") should be $sum." \
        "Nothing was unpacked. Try again later, or get the file elsewhere and put it at $file"
}

# Unpacks $1 into the directory $2.
unpack() {
    say "unpacking ${1##*/}"
    case $1 in
        *.tar.gz) tar -xzf "$1" -C "$2" --no-same-owner ;;
        *.zip)
            if have unzip; then
                unzip -q "$1" -d "$2"
            elif have python3; then
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
    read -r _ archive md5 place unpacked < <(grep "^$name " <<<"$pins")
    place=${FLATNCE_MIRROR:-$place}
    fetch "$place/$archive" "$downloads/$archive" "$md5" || fail "$place/$archive cannot be reached." "By hand:" \
        "1. download $place/$archive on a machine that reaches it (its MD5 is $md5)" \
        "2. put it at $downloads/$archive" "3. run ./scripts/get_data.sh $name again: it checks and unpacks it" \
        "What was downloaded so far is kept and resumed."
    unpack "$downloads/$archive" "$work" || fail "$archive could not be unpacked below $into; is the disk full?"
    [[ -d $work/$unpacked ]] || fail "$archive has no directory $unpacked inside; the layout is not the published one."
    mkdir -- "$work/set"
    mv -- "$work/$unpacked" "$work/set/$unpacked"
    finish "$work/set" "$name"
    [[ $keep == yes ]] || rm -f -- "$downloads/$archive"
}

# Debian's four files into $downloads, where they are checked; nothing where they cannot be had.
from_debian() {
    local installed=/usr/share/datasets/fashion-mnist
    if [[ -f $installed/train-images-idx3-ubyte.gz ]]; then
        say "taking Debian's installed package dataset-fashion-mnist"
        cp -- "$installed"/*.gz "$downloads"
    elif have apt-get && have dpkg-deb; then
        # Unpacked without installing, so that no root is needed; apt checks its signature.
        say "fetching Debian's package dataset-fashion-mnist"
        if (cd -- "$work" && debian_package) && dpkg-deb -x "$work"/*.deb "$work"; then
            mv -- "$work$installed"/*.gz "$downloads"
        else
            say "Debian's package cannot be had; trying the place of its authors"
        fi
    fi
}

debian_package() {
    apt-get -q download dataset-fashion-mnist && return
    # Without package lists nothing is found; root may fetch them.
    [[ $(id -u) == 0 ]] && apt-get -q update && apt-get -q download dataset-fashion-mnist
}

get_fashion_mnist() {
    local name sum place=${FLATNCE_MIRROR:-$fashion_place}
    [[ -n ${FLATNCE_MIRROR:-} ]] || from_debian
    mkdir -- "$work/set"
    while read -r name sum; do
        [[ -n $name ]] || continue
        fetch "$place/$name.gz" "$downloads/$name.gz" "$sum" || fail "Fashion-MNIST cannot be reached." "By hand, one of:" \
            "- on Debian or Ubuntu: apt-get install dataset-fashion-mnist, and run this again" \
            "- download the four files named *-ubyte.gz that https://github.com/zalandoresearch/fashion-mnist lists, put" \
            "  them into one directory DIR, and run FLATNCE_MIRROR=file://DIR ./scripts/get_data.sh fashion_mnist"
        mv -- "$downloads/$name.gz" "$work/set/$name.gz"
    done <<<"$fashion_files"
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
                warn "nothing is known of \"$1\"; the names are: ${known[*]}"
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
if have flock; then
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
