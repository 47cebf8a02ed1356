"""The program's evaluation against scikit-learn's, on the features that `flatnce embed` writes.

An encoder is trained for one epoch: how good it is does not matter here. The program evaluates it with the penalised linear classifier and with nearest
neighbours; `embed` writes the features of the same images, and scikit-learn fits LogisticRegression to them, at the
penalty that has the same minimum, and classifies by its own neighbours. Nothing passes between the two but the features.
"""

import json
import sys
import time

import numpy as np
import program
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

# Points of accuracy, and test images.
LINEAR_TOLERANCE, KNN_TOLERANCE = 0.5, 0
WEIGHTED, TEMPERATURE, PLAIN = 200, 0.1, 20
ENCODER_IMAGES = 2_000
# Optimiser with its flags, whether the features are standardised, and lambda.
LBFGS = ("--fc-optimizer=LBFGS", "--fc-epochs=1000")
SGD = ("--fc-optimizer=sgd", "--fc-epochs=100", "--fc-batch-size=256", "--fc-lr=0.1")
CASES = [("LBFGS", LBFGS, False, 1e-3), ("SGD", SGD, True, 1e-2), ("LBFGS", LBFGS, True, 1e-2)]


def run(options):
    place = options.runs / f"agreement_{options.model}"
    words = [
        *options.dataset, "--clr=flatclr", f"--model={options.model}", "--batch-size=64", "--optimizer=adam", "--lr=1e-3",
        "--warmup-epochs=0", "--crop-scale-min=0.2", f"--train-images={ENCODER_IMAGES}", f"--device={options.device}",
        "--keep-last=1", "--knn-every=0",
    ]
    directory, _ = program.trained(place, words, 1)
    train, train_labels = embedded(options, directory, place, "train")
    test, test_labels = embedded(options, directory, place, "test")
    linear, neighbours = [], {}
    for name, flags, standardised, penalty in CASES:
        program.say(f"linear classifier: {name}, standardised {standardised}, lambda {penalty:g}")
        ours = evaluated(options, directory, place, flags, standardised, penalty)
        scaler = StandardScaler().fit(train) if standardised else None
        seen = [scaler.transform(x) if scaler else x for x in (train, test)]
        begun = time.perf_counter()
        peer = LogisticRegression(C=1 / (penalty * len(train)), max_iter=5000, tol=1e-6).fit(seen[0], train_labels)
        theirs = 100 * peer.score(seen[1], test_labels)
        linear.append({
            "optimiser": name, "standardised": standardised, "reg_weight": penalty,
            "ours": ours["test_top1_last_epoch"], "theirs": theirs, "iterations": int(peer.n_iter_.max()),
            "seconds_theirs": time.perf_counter() - begun,
        })
        neighbours["ours"] = [ours["knn_plain_top1"], ours["knn_weighted_top1"]]
    program.say("nearest neighbours")
    vote = lambda distances: np.exp((1 - distances) / TEMPERATURE)
    neighbours["theirs"] = [
        100 * KNeighborsClassifier(k, weights=weights, metric="cosine", algorithm="brute")
        .fit(train, train_labels).score(test, test_labels)
        for k, weights in ((PLAIN, "uniform"), (WEIGHTED, vote))
    ]
    report(options, linear, neighbours, len(train), len(test))


def embedded(options, directory, place, part):
    """Features in float64 and labels, as the linear evaluation sees them."""
    out = place / f"{part}_{options.labelled}"
    if not (out / "embed.json").exists():
        program.say(f"features of the {part} images")
        program.call(
            "embed", *options.dataset, f"--checkpoint-dir={directory}", f"--part={part}", f"--out={out}", "--force",
            f"--train-images={options.labelled}", f"--device={options.device}",
        )
    return np.load(out / "features.npy").astype(np.float64), np.load(out / "labels.npy")


def evaluated(options, directory, place, flags, standardised, penalty):
    evaluation = place / f"evaluation_{options.labelled}_{flags[0].split('=')[1]}_{standardised}_{penalty:g}"
    if not list(evaluation.rglob("linear_eval.json")):
        program.call(
            *options.dataset, "--train-mode=eval", f"--checkpoint-dir={directory}", *flags, f"--fc-standardize={standardised}",
            f"--reg-weight={penalty}", f"--train-images={options.labelled}", f"--knn-neighbours={WEIGHTED}",
            f"--knn-temperature={TEMPERATURE}", f"--save-dir={evaluation}", f"--device={options.device}", "--quiet",
        )
    return json.loads(next(evaluation.rglob("linear_eval.json")).read_text())


def report(options, linear, neighbours, train, test):
    content = {**program.surroundings(), "train_images": train, "test_images": test, "linear": linear, "neighbours": neighbours}
    program.write_json(options.out / "agreement.json", content)
    lines = [f"{train:,} training and {test:,} test images, test top-1 (%):", "", "| classifier | flatnce | scikit-learn |", "|---|---|---|"]
    for one in linear:
        features = "standardised" if one["standardised"] else "features as they are"
        name = f"linear, {one['optimiser']}, {features}, λ = {one['reg_weight']:g}"
        lines.append(f"| {name} | {one['ours']:.2f} | {one['theirs']:.2f} |")
    names = [f"{PLAIN} neighbours", f"{WEIGHTED} neighbours, weighted, t = {TEMPERATURE}"]
    for name, ours, theirs in zip(names, neighbours["ours"], neighbours["theirs"]):
        lines.append(f"| {name} | {ours:.2f} | {theirs:.2f} |")
    table = "\n".join(lines) + "\n"
    (options.out / "agreement.md").write_text(table)
    print(table)
    apart = [f"linear: {one['ours']:.2f} and {one['theirs']:.2f}" for one in linear if abs(one["ours"] - one["theirs"]) > LINEAR_TOLERANCE]
    for name, ours, theirs in zip(names, neighbours["ours"], neighbours["theirs"]):
        if round(abs(ours - theirs) * test / 100) > KNN_TOLERANCE:
            apart.append(f"{name}: {ours:.2f} and {theirs:.2f}")
    if apart:
        sys.exit("reproduce: error: the two disagree: " + "; ".join(apart))
