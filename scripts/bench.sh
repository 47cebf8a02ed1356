#!/usr/bin/env bash
# Measures flatnce against PyTorch and torchvision, in pairs that take turns.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

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
  all       all of these but the last two, and one table at the end: about an hour

  --quick      rough numbers; all of it in about 5 minutes on 2 cores
  --json FILE  every number, with the machine, the versions, the commit and the date
  OPTION       of the part alone: ./scripts/bench.sh PART --help

Close other programs: they slow both sides, and seldom both alike.
HELP
}

. scripts/setup/common.sh
script=bench failure=2
case ${1-} in
    "") usage && exit 2 ;;
    -h | --help) usage && exit 0 ;;
    train | kernels | augment | start | index | save | eval | precision | distributed | all) ;;
    *) fail "'$1' is none of: train kernels augment start index save eval precision distributed all." "./scripts/bench.sh --help" ;;
esac
ready_to_measure "$@"
exec "$python" scripts/bench/main.py "$@"
