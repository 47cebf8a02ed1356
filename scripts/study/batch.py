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

OBJECTIVES = ["simclr", "flatclr"]
TEMPERATURE = 0.1
NEIGHBOURS = 20
# The square-root rule: so much at a batch of one. Adam's is 1e-3 at batch 64, as in the demo; LARS's is the paper's.
LR_OF_ONE = {"adam": 1.25e-4, "lars": 0.075}


def run(options):
    results = []
    for batch in options.batches:
        for objective in OBJECTIVES:
            factor, tried = search(options, objective, batch)
            for seed in range(1, options.seeds + 1):
                results.append({**final(options, objective, batch, factor, seed), "tried": tried})
    before = [untrained(options, seed) for seed in range(1, options.seeds + 1)]
    settings = {name: str(value) for name, value in vars(options).items()}
    content = {**program.surroundings(), "options": settings, "untrained": before, "results": results}
    program.write_json(options.out / "batch.json", content)
    table = tables(results, before)
    (options.out / "batch.md").write_text(table)
    print(table)
    plots.batch(results, before, options.out)


def learning_rate(options, batch, factor):
    return LR_OF_ONE[options.optimizer] * math.sqrt(batch) * factor


def words(options, objective, batch, factor, seed):
    return [
        *options.dataset,
        f"--clr={objective}",
        f"--model={options.model}",
        f"--batch-size={batch}",
        f"--lr={learning_rate(options, batch, factor):.6g}",
        f"--temperature={TEMPERATURE}",
        f"--seed={seed}",
        f"--train-images={options.images}",
        f"--device={options.device}",
        f"--optimizer={options.optimizer}",
        "--crop-scale-min=0.2",
        "--warmup-epochs=1",
        "--save-every-n-epochs=1",
        "--keep-last=1",
    ]


def place_of(options, objective, batch, factor, seed, epochs):
    name = f"{objective}_b{batch}_{options.optimizer}_f{factor:g}_s{seed}_e{epochs}_n{options.images}_{options.model}"
    return options.runs / name


def search(options, objective, batch):
    """The factor whose short training classifies held-out training images best, and what each reached."""
    tried = {}
    for factor in options.factors:
        place = place_of(options, objective, batch, factor, 0, options.search_epochs)
        program.say(f"search: {objective}, batch {batch}, lr factor {factor:g}")
        asked = [*words(options, objective, batch, factor, 0), "--knn-every=0"]
        directory, _ = program.trained(place, asked, options.search_epochs)
        tried[factor] = held_out(options, directory, place)
    return max(tried, key=tried.get), tried


def held_out(options, directory, place):
    """Percent of a fifth of (at most 10,000) training images that the others' neighbours classify."""
    kept = place / "held_out.json"
    if not kept.exists():
        out = place / "features"
        program.call(
            "embed", *options.dataset, f"--checkpoint-dir={directory}", "--part=train", f"--out={out}", "--force",
            f"--train-images={min(options.images, 10_000)}", f"--device={options.device}",
        )
        features, labels = np.load(out / "features.npy"), np.load(out / "labels.npy")
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        order = np.random.default_rng(0).permutation(len(labels))
        asked, bank = order[: len(order) // 5], order[len(order) // 5 :]
        near = np.argpartition(-(features[asked] @ features[bank].T), NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        votes = np.apply_along_axis(np.bincount, 1, labels[bank][near], minlength=labels.max() + 1)
        kept.write_text(json.dumps(100 * float((votes.argmax(1) == labels[asked]).mean())))
    return json.loads(kept.read_text())


def evaluated(options, directory, place):
    """What the linear evaluation of the newest checkpoint says: linear_eval.json."""
    found = list(place.rglob("linear_eval.json"))
    if not found:
        labelled = 4_000 if "mini" in options.dataset[0] else 10_000
        # LBFGS finds the optimum of the penalised classifier, so that no learning rate favours a side.
        program.call(
            *options.dataset, "--train-mode=eval", f"--checkpoint-dir={directory}", "--fc-optimizer=LBFGS",
            "--fc-epochs=200", "--fc-standardize", "--reg-weight=1e-4,1e-3,1e-2", f"--save-dir={place}",
            f"--device={options.device}", "--quiet",
            *([] if options.images > 10_000 else [f"--train-images={labelled}"]),
        )
        found = list(place.rglob("linear_eval.json"))
    return json.loads(found[0].read_text())


def untrained(options, seed):
    """Test top-1 of the encoder that the trainings of a seed begin with."""
    place = options.runs / f"untrained_s{seed}_{options.model}"
    directory, _ = program.trained(place, words(options, "flatclr", max(options.batches), 1.0, seed), 0)
    outcome = evaluated(options, directory, place / "evaluation")
    return {"seed": seed, "linear": outcome["test_top1_last_epoch"], "knn": outcome["knn_weighted_top1"]}


def final(options, objective, batch, factor, seed):
    program.say(f"{objective}, batch {batch}, lr factor {factor:g}, seed {seed}")
    place = place_of(options, objective, batch, factor, seed, options.epochs)
    asked = [*words(options, objective, batch, factor, seed), f"--knn-every={options.knn_every}"]
    directory, cost = program.trained(place, asked, options.epochs)
    outcome, epochs = evaluated(options, directory, place / "evaluation"), program.rows(directory)
    elapsed, curve = 0.0, []
    for row in epochs:
        elapsed += row["epoch_seconds"] - row.get("knn_seconds", 0.0)
        curve.append({"seconds": elapsed, "epoch": row["epoch"] + 1, "knn": row.get("knn_top1")})
    return {
        "objective": objective,
        "batch": batch,
        "factor": factor,
        "lr": learning_rate(options, batch, factor),
        "seed": seed,
        "linear": outcome["test_top1_last_epoch"],
        "knn": outcome["knn_weighted_top1"],
        "seconds": elapsed,
        "memory_mib": cost["memory_mib"],
        "curve": curve,
        "epochs": [
            {key: row.get(key) for key in ("epoch", "ness_mean", "mi_estimate_nats", "mi_ceiling_nats", "loss_infonce")}
            for row in epochs
        ],
    }


def spread(values):
    mean = statistics.mean(values)
    return f"{mean:.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean:.1f}"


def tables(results, before):
    lines = ["| batch | objective | lr | seeds | linear top-1 (%) | kNN top-1 (%) | NESS at the end | seconds | memory (MiB) |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for batch in sorted({r["batch"] for r in results}):
        for objective in OBJECTIVES:
            mine = [r for r in results if r["batch"] == batch and r["objective"] == objective]
            ness = statistics.mean(r["epochs"][-1]["ness_mean"] for r in mine)
            lines.append(
                f"| {batch} | {objective} | {mine[0]['lr']:.3g} | {len(mine)} | {spread([r['linear'] for r in mine])} | "
                f"{spread([r['knn'] for r in mine])} | {ness:.3f} | {statistics.mean(r['seconds'] for r in mine):.0f} | "
                f"{max(r['memory_mib'] for r in mine):.0f} |"
            )
    linear, knn = (spread([one[key] for one in before]) for key in ("linear", "knn"))
    lines.append(f"| | untrained | | {len(before)} | {linear} | {knn} | | | |")
    return "\n".join(lines) + "\n" + "\n".join(cost(results)) + "\n"


def cost(results):
    """Time to an accuracy that every training reaches: kNN during training, on the same test images for all."""
    reached = [max((p["knn"] for p in r["curve"] if p["knn"] is not None), default=0.0) for r in results]
    level = math.floor(min(reached))
    lines = ["", f"Time and memory until {level}% of the kNN during training, which every run reaches:", ""]
    lines += ["| batch | objective | seconds | epochs | memory (MiB) |", "|---|---|---|---|---|"]
    for r in results:
        first = next(p for p in r["curve"] if p["knn"] is not None and p["knn"] >= level)
        lines.append(
            f"| {r['batch']} | {r['objective']} | {first['seconds']:.0f} | {first['epoch']} | {r['memory_mib']:.0f} |"
        )
    return lines
