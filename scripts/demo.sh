#!/usr/bin/env bash
# From a fresh clone to a trained encoder: sets up, builds, pre-trains on the images inside
# the program, and compares the encoder with the untrained one it began as. Fails where
# training did not help.
set -euo pipefail

# The run. `--epochs` stands apart, since the untrained encoder is the same run of no epoch.
pretraining=(
    --dataset-name fashion_mnist_mini --clr flatclr --model res10 --seed 42
    --batch-size 64 --optimizer adam --lr 1e-3 --scheduler constant
    --crop-scale-min 0.2
)
epochs=6
# The same for both encoders. LBFGS finds the classifier's optimum, so there is no learning
# rate to favour either; the penalty is scikit-learn's C = 0.1 on 4,000 images.
evaluation=(
    --train-mode eval --transfer-mode linear_eval --dataset-name fashion_mnist_mini
    --fc-optimizer LBFGS --fc-epochs 200 --fc-standardize --reg-weight 2.5e-3
)
# Points of linear test top-1 by which the trained encoder must win.
margin=2

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. scripts/setup/common.sh
script=demo root=$PWD results=results/demo
exec </dev/null

usage() {
    cat <<HELP
Usage: ./scripts/demo.sh

Sets up (scripts/setup.sh), builds, pre-trains a ResNet-10 with FlatNCE for $epochs epochs on
4,000 images of Fashion-MNIST that are inside the program, and evaluates it: a linear
classifier and nearest neighbours on its features, the same on the untrained encoder's.

Prints both, and where the picture of the loss and of the effective sample size is. Fails
where training gains less than $margin points. Results: $results/. Running it again makes
another run.
HELP
}
case ${1-} in
    "") ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        fail "unknown option '$1'."
        ;;
esac

phase_log=$(mktemp)
trap print_times EXIT

# Where the program that just ran in a phase says its results are.
results_of_phase() {
    local directory
    directory=$(sed -n 's/^results go to //p' "$phase_log" | tail -n 1)
    [[ -n $directory && -d $directory ]] || fail "the program did not say where its results are."
    printf '%s\n' "$directory"
}

# The table, and the verdict as the exit status. Arguments: two linear_eval.json, the margin.
compare='
import json, sys

KEYS = {
    "linear test top-1": "test_top1_last_epoch",
    "kNN top-1, weighted": "knn_weighted_top1",
    "kNN top-1, plain": "knn_plain_top1",
}

def accuracies(path):
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    missing = [key for key in KEYS.values() if not isinstance(found.get(key), (int, float))]
    if missing:
        sys.exit(f"demo: error: {path} has no number {missing[0]}.")
    return [found[key] for key in KEYS.values()]

untrained, trained = accuracies(sys.argv[1]), accuracies(sys.argv[2])
margin = float(sys.argv[3])
print("| percent of the test images | untrained | trained | gain |")
print("|---|---|---|---|")
for name, before, after in zip(KEYS, untrained, trained):
    print(f"| {name} | {before:.1f} | {after:.1f} | {after - before:+.1f} |")
gain = trained[0] - untrained[0]
if not gain >= margin:
    sys.exit(f"\ndemo: error: training gained {gain:.2f} points of linear top-1; at least {margin:g} are expected.")
print(f"\nTraining gained {gain:.1f} points of linear top-1 (at least {margin:g} are expected).")
'

built_program() {
    cargo metadata --no-deps --format-version 1 --locked |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"] + "/release/flatnce")'
}

phase setup ./scripts/setup.sh
phase build cargo build --release --locked
flatnce=$(built_program)

phase untrained "$flatnce" "${pretraining[@]}" --epochs 0 --save-dir "$results"
untrained_run=$(results_of_phase)
phase pre-train "$flatnce" "${pretraining[@]}" --epochs "$epochs" --save-dir "$results"
trained_run=$(results_of_phase)
phase eval-before "$flatnce" "${evaluation[@]}" --checkpoint-dir "$untrained_run" --save-dir "$results"
untrained_evaluation=$(results_of_phase)
phase eval-after "$flatnce" "${evaluation[@]}" --checkpoint-dir "$trained_run" --save-dir "$results"
trained_evaluation=$(results_of_phase)
page=$results/report.html
phase report "$flatnce" report "$untrained_run" "$trained_run" "$untrained_evaluation" "$trained_evaluation" \
    --html "$page" --pictures "$results/pictures"

printf '\n== result\n'
picture=$trained_run/curves.png
[[ -s $picture ]] || fail "$picture was not drawn; $trained_run/training.log says why."
python3 -c "$compare" "$untrained_evaluation/linear_eval.json" "$trained_evaluation/linear_eval.json" "$margin"
printf 'Loss and effective sample size over the epochs: %s\n' "$root/$picture"
printf 'Everything on one page: %s\n' "$root/$page"
