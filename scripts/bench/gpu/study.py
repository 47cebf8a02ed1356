"""The study's first points on a GPU: FlatCLR and SimCLR at batch 32, from the embedded images, beside each other."""

import math

import runner

EPOCHS = 20
OBJECTIVES = {"flatclr": "FlatCLR", "simclr": "SimCLR"}
# scripts/study/batch.py's rule for Adam.
LR = 1.25e-4 * math.sqrt(32)


def run(options, found):
    size = ["--model=res10", "--image-size=8", "--train-images=64", "--epochs=1"] if options.smoke else ["--model=res18", f"--epochs={EPOCHS}"]
    words = ["--batch-size=32", "--optimizer=adam", f"--lr={LR:.6g}", "--crop-scale-min=0.2", "--warmup-epochs=1", "--save-every-n-epochs=100"]
    runs = runner.Runs(2)
    for objective in OBJECTIVES:
        runs.start(objective, runner.train, options, objective, *size, *words, f"--clr={objective}", knn_every=1 if options.smoke else EPOCHS)
    for objective, name in OBJECTIVES.items():
        found.attempt(name, lambda: point(options, found, name, runs[objective]))


def point(options, found, name, made):
    """What the last epoch's line says."""
    last = made.lines("metrics.jsonl")[-1]
    found.row(f"{name}, batch 32, {last['epoch'] + 1} epochs: contrastive top-1", None, "%", [last["contrastive_top1"]], None)
    found.row(f"{name}, batch 32: loss", None, "nats", [last["loss_infonce"]], None)
    found.row(f"{name}, batch 32: nearest neighbours, test images", None, "%", [last["knn_top1"]], None)
