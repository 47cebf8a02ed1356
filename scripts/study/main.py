"""Runs the parts of the study; scripts/reproduce.sh --help says how."""

import argparse
import sys
from pathlib import Path

import agreement
import batch
import numerics
import program
import upstream

PARTS = {"batch": batch.run, "numerics": numerics.run, "upstream": upstream.run, "agreement": agreement.run}
QUICK = {
    "batches": [8, 32, 128], "seeds": 1, "images": 2_048, "labelled": 4_000, "epochs": 6, "search_epochs": 1, "knn_every": 2,
}
FULL = {
    "batches": [8, 16, 32, 64, 128, 256, 512], "seeds": 3, "images": 60_000, "labelled": 60_000, "epochs": 60,
    "search_epochs": 10, "knn_every": 1,
}


def numbers(kind):
    return lambda text: [kind(word) for word in text.split(",")]


def main():
    parser = argparse.ArgumentParser(prog="scripts/reproduce.sh", add_help=False)
    parser.add_argument("parts", nargs="*", metavar="PART")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true")
    size.add_argument("--full", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("results/study"))
    parser.add_argument("--runs", type=Path, default=Path("results/study-runs"))
    parser.add_argument("--data", type=Path, default=Path("datasets"))
    parser.add_argument("--model", default="res10")
    parser.add_argument("--optimizer", choices=["adam", "lars"], default="adam")
    parser.add_argument("--batches", type=numbers(int))
    parser.add_argument("--factors", type=numbers(float), default=[0.5, 1.0, 2.0])
    for name in ("seeds", "images", "labelled", "epochs", "search-epochs", "knn-every"):
        parser.add_argument(f"--{name}", type=int)
    options = parser.parse_args()
    for name, value in (FULL if options.full else QUICK).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if unknown := [part for part in options.parts if part not in PARTS]:
        sys.exit(f"reproduce: error: '{unknown[0]}' is none of: {' '.join(PARTS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    options.dataset = program.dataset(options.data, options.images)
    for part in options.parts or PARTS:
        PARTS[part](options)


main()
