"""Accuracy over the batch size, for both objectives alike.

For every objective and batch size the learning rate is a square-root rule times a factor; the factor is chosen by
short trainings, on a fifth of the training images that the neighbours of the others classify. The chosen one is trained
from every seed and evaluated on the test images. Nothing is chosen on test images, and nothing for one side alone.
"""

import json
import math
import statistics

import numpy as np
import plots
import program
from common import markdown, say

OBJECTIVES = ["simclr", "flatclr"]
NEIGHBOURS = 20
# The square-root rule: so much at a batch of one. Adam's is 1e-3 at batch 64, as in the demo; LARS's is the paper's.
LR_OF_ONE = {"adam": 1.25e-4, "lars": 0.075}


def run(study):
    options, results = study.options, []
    seeds = range(1, options.seeds + 1)
    for batch in options.batches:
        for objective in OBJECTIVES:
            factor, tried = search(study, objective, batch)
            results += [{**final(study, objective, batch, factor, seed), "tried": tried} for seed in seeds]
    before = [untrained(study, seed) for seed in seeds]
    settings = {name: str(value) for name, value in vars(options).items()}
    study.write("batch", tables(results, before), options=settings, untrained=before, results=results)
    plots.batch(results, before, study.out)


def learning_rate(options, batch, factor):
    return LR_OF_ONE[options.optimizer] * math.sqrt(batch) * factor


def pretrained(study, name, objective, batch, factor, seed, epochs, **flags):
    options = study.options
    recipe = {"optimizer": options.optimizer, "temperature": 0.1, "crop_scale_min": 0.2, "warmup_epochs": 1}
    recipe |= {"clr": objective, "batch_size": batch, "lr": f"{learning_rate(options, batch, factor):.6g}"}
    files = {"save_every_n_epochs": 1, "keep_last": 1}
    return study.pretrained(name, epochs, **recipe, **files, seed=seed, train_images=options.images, **flags)


def name_of(options, objective, batch, factor, seed, epochs):
    return f"{objective}_b{batch}_{options.optimizer}_f{factor:g}_s{seed}_e{epochs}_n{options.images}_{options.model}"


def search(study, objective, batch):
    """The factor whose short training classifies held-out training images best, and what each reached."""
    options, tried = study.options, {}
    for factor in options.factors:
        say(f"search: {objective}, batch {batch}, lr factor {factor:g}")
        name = name_of(options, objective, batch, factor, 0, options.search_epochs)
        made = pretrained(study, name, objective, batch, factor, 0, options.search_epochs, knn_every=0)
        tried[factor] = held_out(study, made, options.runs / name)
    return max(tried, key=tried.get), tried


def held_out(study, made, place, images=None):
    """Percent of a fifth of (at most 10,000) training images that the others' neighbours classify."""
    kept = place / "held_out.json"
    if not kept.exists():
        features, labels = study.features(made, place / "features", min(images or study.options.images, 10_000))
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        order = np.random.default_rng(0).permutation(len(labels))
        asked, bank = order[: len(order) // 5], order[len(order) // 5 :]
        near = np.argpartition(-(features[asked] @ features[bank].T), NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        votes = np.apply_along_axis(np.bincount, 1, labels[bank][near], minlength=labels.max() + 1)
        kept.write_text(json.dumps(100 * float((votes.argmax(1) == labels[asked]).mean())))
    return json.loads(kept.read_text())


def judge(study, made, name, **images):
    """What an evaluation of the newest checkpoint found: LBFGS finds the optimum of the penalised classifier, so that no
    learning rate favours a side."""
    classifier = {"fc_optimizer": "LBFGS", "fc_epochs": 200, "fc_standardize": "true", "reg_weight": "1e-4,1e-3,1e-2"}
    place = study.options.runs / name / "evaluation"
    return program.evaluated(place, **study.flags, checkpoint_dir=made.directory, **classifier, **images)


def evaluated(study, made, name):
    few = {"train_images": 10_000 if "data" in study.dataset else 4_000} if study.options.images <= 10_000 else {}
    outcome = judge(study, made, name, **few)
    return {"linear": outcome["test_top1_last_epoch"], "knn": outcome["knn_weighted_top1"]}


def untrained(study, seed):
    """Of the encoder that the trainings of a seed begin with."""
    name = f"untrained_s{seed}_{study.options.model}"
    made = pretrained(study, name, "flatclr", max(study.options.batches), 1.0, seed, 0)
    return {"seed": seed, **evaluated(study, made, name)}


def final(study, objective, batch, factor, seed):
    options = study.options
    say(f"{objective}, batch {batch}, lr factor {factor:g}, seed {seed}")
    name = name_of(options, objective, batch, factor, seed, options.epochs)
    made = pretrained(study, name, objective, batch, factor, seed, options.epochs, knn_every=options.knn_every)
    epochs, elapsed, curve = made.lines("metrics.jsonl"), 0.0, []
    for row in epochs:
        elapsed += row["epoch_seconds"]
        curve.append({"seconds": elapsed, "epoch": row["epoch"] + 1, "knn": row.get("knn_top1")})
    kept = ("epoch", "ness_mean", "mi_estimate_nats", "mi_ceiling_nats", "loss_infonce")
    return {
        "objective": objective, "batch": batch, "factor": factor, "lr": learning_rate(options, batch, factor), "seed": seed,
        **evaluated(study, made, name), "seconds": elapsed, "memory_mib": max(row["memory_peak_mib"] for row in epochs),
        "curve": curve, "epochs": [{key: row.get(key) for key in kept} for row in epochs],
    }  # fmt: skip


def spread(results, key):
    values = [result[key] for result in results]
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def tables(results, before):
    head = ["batch", "objective", "lr", "seeds", "linear top-1 (%)", "kNN top-1 (%)", "NESS at the end", "seconds", "memory (MiB)"]
    lines = []
    for batch in sorted({r["batch"] for r in results}):
        for objective in OBJECTIVES:
            mine = [r for r in results if r["batch"] == batch and r["objective"] == objective]
            ness = statistics.mean(r["epochs"][-1]["ness_mean"] for r in mine)
            accuracies = [spread(mine, "linear"), spread(mine, "knn")]
            cost = [f"{statistics.mean(r['seconds'] for r in mine):.0f}", f"{max(r['memory_mib'] for r in mine):.0f}"]
            lines.append([batch, objective, f"{mine[0]['lr']:.3g}", len(mine), *accuracies, f"{ness:.3f}", *cost])
    lines.append(["", "untrained", "", len(before), spread(before, "linear"), spread(before, "knn"), "", "", ""])
    return markdown(head, lines) + "\n" + cost_of(results) + "\n"


def cost_of(results):
    """Time to an accuracy that every training reaches: kNN during training, on the same test images for all."""
    seen = [[point for point in r["curve"] if point["knn"] is not None] for r in results]
    level = math.floor(min(max((point["knn"] for point in points), default=0.0) for points in seen))
    lines = []
    for r, points in zip(results, seen):
        first = next(point for point in points if point["knn"] >= level)
        lines.append([r["batch"], r["objective"], f"{first['seconds']:.0f}", first["epoch"], f"{r['memory_mib']:.0f}"])
    title = f"\nTime and memory until {level}% of the kNN during training, which every run reaches:\n\n"
    return title + markdown(["batch", "objective", "seconds", "epochs", "memory (MiB)"], lines)
