#!/usr/bin/env bash
# Proves flatnce on a GPU and measures it against PyTorch there, in nine minutes.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'HELP'
Usage: ./scripts/prove_gpu.sh --out DIR [OPTION...]

Needs a Python 3.11 or newer with PyTorch 2.11, torchvision, safetensors and NumPy; no
network, and with --binary no compiler. The stages, the most valuable first, with the
seconds that they are thought to take on one H100 and 16 cores (it has not run on one yet):

  doctor     15  flatnce doctor; if it finds anything wrong, nothing else is run (--skip doctor
                 runs the others all the same)
  trainings  20  three small trainings: bf16 + LARS, fp16 + Adam, streamed + parts + SGD
  checks     40  loss, gradients and an epoch's losses against PyTorch; exact resuming;
                 both engines' pixels
  devices    35  checkpoints from GPU to CPU and back, evaluations on both; fp16's scaler
  replay     30  the step as a CUDA graph, and the fused kernels, against the plain step
  small     135  res18, 32 px, batch 512 and 32: against torch.compile, eager PyTorch and
                 main.py's recipe; how busy the device is; peak memory
  variants   40  the rows of res18 with the fused kernels, and the small batch without graphs
  large      65  res50, 224 px, images on the device, against torch.compile
  files      55  res50, 224 px, from JPEG files, against images on the device
  share      20  the augmentation's share of a step
  memory     40  --dry-run's estimate; what running out of memory says
  ranks      25  two processes on one card against one
  kernels    50  where a step's time goes: ncu of ours, the profiler of torch.compile
  study      30  FlatCLR and SimCLR at batch 32

Beside the first five the data are made and torch.compile's cache is filled (110 s); both
are waited for before anything is timed. Nine minutes are thought to be enough up to ranks.
What was not run is named at the end, and --only runs it; with --keep in both calls the
second makes and compiles nothing anew. Every stage has a time limit, and one that fails
does not stop the next.

DIR gets results.jsonl (a line a result, when it is known), summary.txt, gpu.json (every
number, its target, the card, the versions), stages.log, kernels.csv and curves.png.

  --out DIR      where the results go
  --device D     cuda:N (default: cuda:0), or cpu with --smoke
  --binary FILE  this flatnce instead of building one, with the libtorch of that PyTorch
  --measure FILE this benches/measure (target/release/deps/measure-*), with --binary, for the
                 augmentation's share
  --python FILE  this interpreter (default: the one that scripts/setup.sh --python makes if it
                 is there, else python3)
  --only S,...   these stages alone, and what they need
  --skip S,...   not these
  --minutes N    for all of it (default: 9)
  --json FILE    instead of DIR/gpu.json
  --keep DIR     the made data and torch.compile's cache go there and stay, for another call
  --smoke        tiny sizes: whether the script works

Exit code: 0 if no stage failed, 1 if one did, 2 for wrong options.
HELP
}

. scripts/bench/fail.sh

binary="" measure="" python="" out="" device=cuda:0 smoke="" rest=()
while (($#)); do
    option=$1
    # --name=value as well as --name value.
    if [[ $option == --*=* ]]; then
        set -- "${option%%=*}" "${option#*=}" "${@:2}"
        option=$1
    fi
    case $option in
        -h | --help)
            usage
            exit 0
            ;;
        --binary | --measure | --python)
            [[ -n ${2:-} ]] || fail "$1 needs a file."
            [[ -f $2 && -x $2 ]] || fail "$1 $2: no such program."
            printf -v "${1#--}" '%s' "$(realpath -s -- "$2")"
            shift
            ;;
        --out | --json | --keep | --device | --only | --skip | --minutes)
            [[ -n ${2:-} ]] || fail "$1 needs a value."
            case $1 in
                --out) out=$(realpath -ms -- "$2") ;;
                --device) device=$2 ;;
                --json | --keep) rest+=("$1" "$(realpath -ms -- "$2")") ;;
                *) rest+=("$1" "$2") ;;
            esac
            shift
            ;;
        --smoke) smoke=--smoke ;;
        *) fail "'$1' is no option." "./scripts/prove_gpu.sh --help" ;;
    esac
    shift
done
[[ -n $out ]] || fail "--out is missing: where do the results go?" "./scripts/prove_gpu.sh --out DIR"
[[ $device =~ ^(cpu|cuda:[0-9]+)$ ]] || fail "--device $device is neither cuda:N nor cpu."
[[ $device != cpu || -n $smoke ]] || fail "--device cpu goes with --smoke: the full sizes would take a CPU days."

if [[ -z $python ]]; then
    python=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME}/.cache}/flatnce/python/bin/python
    [[ -x $python ]] || python=$(command -v python3) || fail "python3 is not there." "--python FILE"
fi
# Found, not imported: the stages import what they use.
"$python" -c '
import importlib.util, sys
missing = [name for name in ("numpy", "safetensors", "torch", "torchvision") if importlib.util.find_spec(name) is None]
if sys.version_info < (3, 11): sys.exit("it is Python %d.%d, not 3.11 or newer" % sys.version_info[:2])
if missing: sys.exit("it lacks " + ", ".join(missing))' ||
    fail "$python cannot run this; it said why above." "--python FILE, or ./scripts/setup.sh --python"
if [[ -z $binary ]]; then
    cargo build --release --quiet >&2
    cargo bench --no-run --quiet --bench measure >&2
else
    export FLATNCE_BINARY=$binary
    # What it was built beside may be on another machine: PyTorch's libtorch is here with its CUDA part, and in the wheels
    # beside it what that part needs.
    libraries=$("$python" -c '
import importlib.util, pathlib
torch = pathlib.Path(importlib.util.find_spec("torch").origin).parent
nvidia = importlib.util.find_spec("nvidia")
roots = [pathlib.Path(root) for root in nvidia.submodule_search_locations] if nvidia else []
print(":".join(map(str, [torch / "lib", *sorted(place for root in roots for place in root.glob("*/lib"))])))')
    export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
[[ -z $measure ]] || export FLATNCE_MEASURE=$measure
# cuBLAS wants it for --deterministic, and it costs nothing without.
export CUBLAS_WORKSPACE_CONFIG=:4096:8
exec "$python" scripts/bench/gpu/main.py --out "$out" --device "$device" $smoke "${rest[@]}"
