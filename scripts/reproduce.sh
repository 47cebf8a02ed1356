#!/usr/bin/env bash
# The paper's claim, measured: what the batch size does to InfoNCE and to FlatNCE.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

usage() {
    cat <<'HELP'
Usage: ./scripts/reproduce.sh [--quick | --full] [PART...] [OPTION...]

Sets up and builds (scripts/setup.sh --python), then runs the parts, all of them unless
some are named:

  batch      accuracy over the batch size for both objectives, and what it costs
  numerics   the objectives' gradients in float32, bfloat16 and float16
  upstream   the same training in PyTorch, step by step from the same weights on the same views
  agreement  linear classifier and nearest neighbours against scikit-learn's, on the features that embed writes

  --quick        batch sizes 8, 32 and 128, one seed, 2,048 images: under an hour on 2 cores
                 (the default)
  --full         batch sizes 8 to 512, three seeds, 60,000 images: days on a CPU, hours on a GPU
  --optimizer O  adam (the default) or lars
  --device D     cpu, cuda, cuda:N or auto (default)
  --out DIR      tables and pictures (default: results/study)
  --runs DIR     where the trainings are kept (default: results/study-runs)
  --data DIR     as flatnce's --data (default: datasets)
  --batches LIST --seeds N --images N --labelled N --epochs N --search-epochs N --factors LIST
                 instead of what --quick or --full says; factors multiply the learning rate in
                 its search, labelled are the training images of part agreement

A study that was stopped goes on where it was: finished trainings are kept, one that was cut
off is resumed from its checkpoint.
HELP
}

for argument in "$@"; do
    case $argument in
        -h | --help)
            usage
            exit 0
            ;;
    esac
done
./scripts/setup.sh --python >&2
cargo build --release --quiet >&2
python=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME}/.cache}/flatnce/python/bin/python
exec "$python" scripts/study/main.py "$@"
