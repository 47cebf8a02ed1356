"""The program's evaluation against scikit-learn's, on the features that `flatnce embed` writes.

An encoder is trained for one epoch: how good it is does not matter here. The program evaluates it with the penalised linear
classifier and with nearest neighbours; `embed` writes the features of the same images, and scikit-learn fits
LogisticRegression to them, at the penalty that has the same minimum, and classifies by its own neighbours. Nothing passes
between the two but the features.
"""

import time

import numpy as np
import program
from common import markdown, say
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

# Points of accuracy, and test images.
LINEAR_TOLERANCE, KNN_TOLERANCE = 0.5, 0
WEIGHTED, TEMPERATURE, PLAIN = 200, 0.1, 20
ENCODER_IMAGES = 2_000
# Optimiser with its flags, whether the features are standardised, and lambda.
LBFGS = {"fc_optimizer": "LBFGS", "fc_epochs": 1000}
SGD = {"fc_optimizer": "sgd", "fc_epochs": 100, "fc_batch_size": 256, "fc_lr": 0.1}
CASES = [("LBFGS", LBFGS, False, 1e-3), ("SGD", SGD, True, 1e-2), ("LBFGS", LBFGS, True, 1e-2)]


def run(study):
    name, labelled = f"agreement_{study.options.model}", study.options.labelled
    place = study.options.runs / name
    recipe = {"clr": "flatclr", "batch_size": 64, "optimizer": "adam", "lr": 1e-3, "warmup_epochs": 0, "crop_scale_min": 0.2}
    made = study.pretrained(name, 1, **recipe, train_images=ENCODER_IMAGES, keep_last=1, knn_every=0)
    say("features of the training and of the test images")
    features = [study.features(made, place / f"{part}_{labelled}", labelled, part) for part in ("train", "test")]
    (train, train_labels), (test, test_labels) = ((seen.astype(np.float64), labels) for seen, labels in features)
    linear = []
    for optimiser, flags, standardised, penalty in CASES:
        say(f"linear classifier: {optimiser}, standardised {standardised}, lambda {penalty:g}")
        classifier = {**flags, "fc_standardize": standardised, "reg_weight": penalty, "train_images": labelled}
        neighbours = {"knn_neighbours": WEIGHTED, "knn_temperature": TEMPERATURE}
        evaluation = place / f"evaluation_{labelled}_{flags['fc_optimizer']}_{standardised}_{penalty:g}"
        ours = program.evaluated(evaluation, **study.flags, checkpoint_dir=made.directory, **classifier, **neighbours)
        scaler = StandardScaler().fit(train) if standardised else None
        seen = [scaler.transform(x) if scaler else x for x in (train, test)]
        begun = time.perf_counter()
        peer = LogisticRegression(C=1 / (penalty * len(train)), max_iter=5000, tol=1e-6).fit(seen[0], train_labels)
        linear.append({
            "optimiser": optimiser, "standardised": standardised, "reg_weight": penalty,
            "ours": ours["test_top1_last_epoch"], "theirs": 100 * peer.score(seen[1], test_labels),
            "iterations": int(peer.n_iter_.max()), "seconds_theirs": time.perf_counter() - begun,
        })  # fmt: skip
    say("nearest neighbours")
    vote = lambda distances: np.exp((1 - distances) / TEMPERATURE)
    found = [
        100 * KNeighborsClassifier(k, weights=weights, metric="cosine", algorithm="brute")
        .fit(train, train_labels).score(test, test_labels)
        for k, weights in ((PLAIN, "uniform"), (WEIGHTED, vote))
    ]  # fmt: skip
    report(study, linear, {"ours": [ours["knn_plain_top1"], ours["knn_weighted_top1"]], "theirs": found}, len(train), len(test))


def report(study, linear, neighbours, train, test):
    """Of every classifier: its name, both accuracies, and whether they are the same."""
    rows = []
    for one in linear:
        features = "standardised" if one["standardised"] else "features as they are"
        same = abs(one["ours"] - one["theirs"]) <= LINEAR_TOLERANCE
        rows.append((f"linear, {one['optimiser']}, {features}, λ = {one['reg_weight']:g}", one["ours"], one["theirs"], same))
    names = [f"{PLAIN} neighbours", f"{WEIGHTED} neighbours, weighted, t = {TEMPERATURE}"]
    for name, ours, theirs in zip(names, neighbours["ours"], neighbours["theirs"]):
        rows.append((name, ours, theirs, round(abs(ours - theirs) * test / 100) <= KNN_TOLERANCE))
    table = markdown(["classifier", "flatnce", "scikit-learn"], [[name, f"{a:.2f}", f"{b:.2f}"] for name, a, b, _ in rows])
    table = f"{train:,} training and {test:,} test images, test top-1 (%):\n\n{table}\n"
    study.write("agreement", table, train_images=train, test_images=test, linear=linear, neighbours=neighbours)
    if apart := [f"{name}: {a:.2f} and {b:.2f}" for name, a, b, same in rows if not same]:
        raise program.Failed("the two disagree: " + "; ".join(apart))
