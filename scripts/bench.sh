#!/usr/bin/env bash
# Measures flatnce against PyTorch and torchvision, in pairs that take turns.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

parts=(train kernels augment start index save eval)

usage() {
    cat <<'HELP'
Usage: ./scripts/bench.sh PART [--quick] [--json FILE] [OPTION...]

Builds the program, makes the Python environment (scripts/setup.sh --python: 5 GB,
once), runs flatnce and its peers in turns and prints medians, ratios and targets.

  train     images a second, memory, what the loop costs
  kernels   loss and optimiser
  augment   augmentation and JPEG decoding; the loader's threads
  start     start of the process to its first step
  index     a tree of 1,281,167 files; an image in sets of 1,000 to 1,000,000
  save      checkpoints
  eval      evaluation
  distributed several processes against PyTorch's DistributedDataParallel;
            not in "all"
  precision accuracy after training in bf16 and in fp32: 40 minutes, not in "all"
  all       all of these but the last, and one table at the end: about an hour

  --quick      rough numbers; all of it in about 5 minutes on 2 cores
  --json FILE  every number, with the machine, the versions, the commit and the date
  OPTION       of the part alone: ./scripts/bench.sh PART --help

Close other programs: they slow both sides, and seldom both alike.
HELP
}

. scripts/bench/fail.sh

part=${1:-}
case $part in
    "" | -h | --help)
        usage
        [[ -n $part ]] || exit 2
        exit 0
        ;;
esac
shift
[[ " ${parts[*]} precision distributed all " == *" $part "* ]] || fail "'$part' is none of: ${parts[*]} precision distributed all." "./scripts/bench.sh --help"

have_part() { [[ -f scripts/bench/$1.py ]]; }
[[ $part == all ]] || have_part "$part" || fail "scripts/bench/$part.py is not there: this version cannot measure '$part'."

python=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME}/.cache}/flatnce/python/bin/python
[[ $* == *--help* || $* == "-h" ]] || {
    ./scripts/setup.sh --python >&2
    cargo build --release --quiet >&2
    cargo bench --no-run --quiet >&2
}
[[ -x $python ]] || fail "$python is not there." "./scripts/setup.sh --python makes it."

if [[ $part != all ]]; then
    exec "$python" "scripts/bench/$part.py" "$@"
fi

quick="" json=""
while (($#)); do
    case $1 in
        --quick) quick=--quick ;;
        --json)
            [[ -n ${2:-} ]] || fail "--json needs a file."
            json=$2
            shift
            ;;
        --json=*) json=${1#--json=} ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) fail "'all' does not know '$1'." "It takes --quick and --json FILE." ;;
    esac
    shift
done
if [[ -n $json ]]; then
    # Known before the hour, not after it.
    [[ -d $(dirname -- "$json") && -w $(dirname -- "$json") ]] || fail "$json cannot be written: its directory is not there."
fi
# Set-up and build are behind us.
SECONDS=0
place=$(mktemp -d)
trap 'rm -rf -- "$place"' EXIT
failed=()
for name in "${parts[@]}"; do
    if ! have_part "$name"; then
        printf "bench: '%s' is left out: scripts/bench/%s.py is not there.\n" "$name" "$name" >&2
        continue
    fi
    printf '\n== %s\n' "$name"
    "$python" "scripts/bench/$name.py" ${quick:+"$quick"} --json "$place/$name.json" || failed+=("$name")
done
"$python" scripts/bench/gather.py "$place" ${json:+--json "$json"}
if ((${#failed[@]})); then
    printf 'bench: error: failed: %s\n' "${failed[*]}" >&2
    exit 1
fi
printf '\nMeasured in %d s.\n' "$SECONDS"
