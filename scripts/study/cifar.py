"""The paper's claim on CIFAR-10: both objectives at every batch size, by two recipes, to the end of a training.

For every recipe and batch size the learning rate is a rule times a factor. Both objectives try the same factors in short
trainings, judged on a fifth of the training images; where the best factor of either lies at an edge, both try one more. The
chosen one is trained from every seed and judged on the 10,000 test images. Nothing is chosen on test images, and nothing for
one side alone.

OUT/cifar.json has every training that is finished, with its machine: whatever stands there is not trained again, here or on
another machine. The most telling come first: both objectives at the smallest and at the middle batch size, one seed.
"""

import heapq
import json
import math
import os
import re
import statistics
import threading
import time
from concurrent import futures
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Callable

import common
import numpy as np
import plots
import program
from common import markdown, say
from program import Failed

OBJECTIVES = ["simclr", "flatclr"]
NEIGHBOURS = 20
# How often the search may go on beyond an edge.
MORE = 4
# Of an untrained encoder, whose weights do not depend on it.
START_BATCH = 128
KEPT = ("epoch", "ness_mean", "mi_estimate_nats", "mi_ceiling_nats", "loss_infonce", "vanished_pull_share", "images_per_second")


@dataclass(frozen=True)
class Recipe:
    about: str
    flags: dict
    rate: Callable
    # Epochs of warm-up of so many.
    warm_up: Callable


RECIPES = {
    # Of the re-implementation of the decoupled loss whose figures on CIFAR-10 are public.
    "sgd": Recipe(
        "SGD, momentum 0.9, weight decay 5e-4, rate 0.03 B/256",
        {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 5e-4}, lambda batch: 0.03 * batch / 256, lambda epochs: 0,
    ),
    # The paper's.
    "lars": Recipe(
        "LARS, weight decay 1e-6, rate 0.075 √B, 10% warm-up",
        {"optimizer": "lars", "weight_decay": 1e-6}, lambda batch: 0.075 * math.sqrt(batch), lambda epochs: epochs // 10,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A training."""

    recipe: str
    objective: str
    batch: int
    factor: float
    seed: int
    epochs: int
    images: int
    model: str
    stem: str
    data: str

    @property
    def name(self):
        data = re.sub(r"\W+", "-", self.data.lower()).strip("-")
        size = f"e{self.epochs}_n{self.images}_{self.model}_{self.stem}"
        return f"{data}_{self.recipe}_{self.objective}_b{self.batch}_f{self.factor:g}_s{self.seed}_{size}"

    @property
    def lr(self):
        return RECIPES[self.recipe].rate(self.batch) * self.factor

    def flags(self):
        recipe = RECIPES[self.recipe]
        return {
            **recipe.flags, "clr": self.objective, "batch_size": self.batch, "lr": f"{self.lr:.6g}", "seed": self.seed,
            "temperature": 0.1, "warmup_epochs": recipe.warm_up(self.epochs), "train_images": self.images, "stem": self.stem,
        }  # fmt: skip


def size(study):
    """What follows a training's epochs."""
    return study.options.images, study.options.model, study.options.stem, study.data_name


class OutOfTime(Exception):
    """The next training would not end in time."""


class Book:
    """OUT/cifar.json: what is finished, by the names of the trainings."""

    def __init__(self, study):
        self.study, self.path, self.begun, self.lock = study, study.out / "cifar.json", time.monotonic(), threading.Lock()
        content = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.runs, self.commands = content.get("runs", {}), content.get("commands", [])
        where = common.surroundings()
        self.place = {"cpu": where["machine"]["cpu"], "device": study.options.device, "card": card(study.options.device)}
        self.place |= {"commit": where["commit"], "torch": where["versions"]["torch"], "at_once": study.options.at_once}

    def result(self, case, work):
        """What is known of a training, or `work(study, case)` now, if that can end in time."""
        if case.name not in self.runs:
            self.check_time(case)
            say(case.name)
            begun = time.monotonic()
            found = work(self.study, case)
            wall = round(max(time.monotonic() - begun, 0.1), 1)
            date = datetime.now(timezone.utc).isoformat(timespec="seconds")
            with self.lock:
                self.runs[case.name] = {**vars(case), "lr": case.lr, **self.place, "date": date, "wall_seconds": wall, **found}
                self.write()
        return self.runs[case.name]

    def check_time(self, case):
        minutes = self.study.options.minutes
        with self.lock:
            same = lambda run: all(run[key] == getattr(case, key) for key in ("batch", "model", "stem"))
            like = [r for r in self.runs.values() if same(r) and self.here(r)]
        rates = [r["images"] * r["epochs"] / r["wall_seconds"] for r in like if r["epochs"] > 0]
        needed = case.images * case.epochs / max(rates) if rates else 0
        if minutes and time.monotonic() - self.begun + needed > 60 * minutes:
            raise OutOfTime(f"{case.name} would take about {needed:.0f} s")

    def here(self, run):
        return all(run[key] == self.place[key] for key in ("cpu", "card", "at_once"))

    def write(self):
        self.commands = list(dict.fromkeys([*self.commands, self.study.command]))
        recipes = {name: recipe.about for name, recipe in RECIPES.items()}
        common.write_json(self.path, {"commands": self.commands, "recipes": recipes, "runs": self.runs})

    def draw(self):
        """Table and picture of what is finished: the table's text, None if nothing is."""
        with self.lock:
            tried, before, finals = parted(self.runs.values())
            if not finals:
                return None
            text = tables(tried, before, finals)
            common.replace(self.study.out / "cifar.md", text)
            plots.cifar(finals, before, RECIPES, self.study.out)
            return text


def card(device):
    if device == "cpu":
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_name(device if ":" in device else 0)


# ---- the order of the work ------------------------------------------------------------------------------------------


def plan(options):
    """(recipe, batch, seed), the most telling first: each recipe's corners, then further seeds, then what lies between."""
    batches = sorted(options.batches)
    corners = list(dict.fromkeys([batches[0], 256 if 256 in batches else batches[-1]]))
    between = [batch for batch in batches if batch not in corners]
    order = []
    for group in (corners, between):
        for recipe in options.recipes:
            for seed in range(1, options.seeds + 1):
                order += [(recipe, batch, seed) for batch in group]
    return order


def run(study):
    options, book = study.options, Book(study)
    if options.draw:
        if not book.runs:
            raise Failed(f"{book.path} holds no trainings yet; leave --draw out to make some")
        book.draw()
        return
    if options.at_once > 1 and book.place["card"] is None:
        # Of trainings beside each other each has its share of the cores: threads that wait for each other would stand still.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, program.CORES // options.at_once)))
    late = carry_out(book, [pair(study, *one) for one in plan(options)])
    if late:
        say(f"no time for more: {late[0]}; at most {2 * len(late)} trainings wait, and the same command goes on with them")
    book.write()
    print(book.draw() or "nothing is finished yet")


def pair(study, recipe, batch, seed):
    """Both objectives, each at its best rate, and the encoder that they begin with. Yields (case, work) of trainings that may run
    beside each other, and is sent what they gave."""
    factors, epochs = (yield from search(study, recipe, batch)), study.options.epochs
    cases = [Case(recipe, objective, batch, factors[objective], seed, epochs, *size(study)) for objective in OBJECTIVES]
    start = Case("sgd", "flatclr", START_BATCH, 1.0, seed, 0, *size(study))
    yield [*((case, final) for case in cases), (start, untrained)]


def search(study, recipe, batch):
    """The factor for each objective. Both try the same ones."""
    tried, factors, epochs = {objective: {} for objective in OBJECTIVES}, sorted(study.options.factors), study.options.search_epochs
    for more in range(MORE + 1):
        new = [(objective, factor) for factor in factors for objective in OBJECTIVES if factor not in tried[objective]]
        found = yield [(Case(recipe, objective, batch, factor, 0, epochs, *size(study)), judged) for objective, factor in new]
        for (objective, factor), one in zip(new, found):
            tried[objective][factor] = one["held_out"]
        best = {objective: max(of, key=of.get) for objective, of in tried.items()}
        factors = sorted(factors)
        low, high = (edge in best.values() for edge in (factors[0], factors[-1]))
        if not low and not high or more == MORE:
            return best
        factors = [*([factors[0] / 2] if low else []), *factors, *([factors[-1] * 2] if high else [])]


def carry_out(book, pairs):
    """Does what the pairs ask for, so much at once, the earlier pair's first and nothing twice. Why pairs found no time."""
    width, waiting, running, ended = book.study.options.at_once, [], {}, {}
    asked, known, late = dict.fromkeys(range(len(pairs)), []), set(), []

    def go_on(place):
        """With what a pair had asked for, when all of it has ended."""
        names = asked.pop(place)
        if reason := next(filter(None, (ended[name].exception() for name in names)), None):
            late.append(reason)
            return
        try:
            works = pairs[place].send([ended[name].result() for name in names] or None)
        except StopIteration:
            book.draw()
            return
        asked[place] = [case.name for case, _ in works]
        for case, work in works:
            if case.name not in known:
                known.add(case.name)
                heapq.heappush(waiting, (place, len(known), case, work))

    with futures.ThreadPoolExecutor(width) as threads:
        while asked or running:
            while ready := [place for place, names in asked.items() if all(name in ended for name in names)]:
                for place in ready:
                    go_on(place)
            while waiting and len(running) < width:
                *_, case, work = heapq.heappop(waiting)
                running[threads.submit(book.result, case, work)] = case.name
            for one in futures.wait(running, return_when=futures.FIRST_COMPLETED).done:
                ended[running.pop(one)] = one
                if one.exception() and not isinstance(one.exception(), OutOfTime):
                    raise one.exception()
    return late


# ---- one training ---------------------------------------------------------------------------------------------------


def judged(study, case):
    """Percent of a fifth of (at most 10,000) training images that the neighbours among the others classify."""
    made = trained(study, case, knn_every=0)
    features, labels = study.features(made, study.options.runs / case.name / "features", min(case.images, 10_000))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    order = np.random.default_rng(0).permutation(len(labels))
    asked, bank = order[: len(order) // 5], order[len(order) // 5 :]
    near = np.argpartition(-(features[asked] @ features[bank].T), NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    votes = np.apply_along_axis(np.bincount, 1, labels[bank][near], minlength=labels.max() + 1)
    return {"held_out": 100 * float((votes.argmax(1) == labels[asked]).mean())}


def trained(study, case, **flags):
    files = {"save_every_n_epochs": max(1, case.epochs // 10), "keep_last": 1}
    return study.pretrained(case.name, case.epochs, **case.flags(), **files, **flags)


def final(study, case):
    made = trained(study, case, knn_every=math.ceil(case.epochs / 10))
    epochs = made.lines("metrics.jsonl")
    seconds = sum(row["epoch_seconds"] for row in epochs)
    memory = max(row["memory_peak_mib"] for row in epochs)
    knn = [[row["epoch"] + 1, row["knn_top1"]] for row in epochs if row.get("knn_top1") is not None]
    curve = [{key: row.get(key) for key in KEPT} for row in epochs]
    return {**evaluated(study, made, case), "seconds": seconds, "memory_mib": memory, "knn_curve": knn, "curve": curve}


def untrained(study, case):
    return evaluated(study, trained(study, case), case)


def evaluated(study, made, case):
    """By the labels of the images that were trained on. LBFGS finds the optimum of the penalised classifier, so that no learning
    rate favours a side."""
    classifier = {"fc_optimizer": "LBFGS", "fc_epochs": 200, "fc_standardize": "true", "reg_weight": "1e-4,1e-3,1e-2"}
    asked = {**study.flags, "checkpoint_dir": made.directory, **classifier, "train_images": case.images}
    outcome = program.evaluated(study.options.runs / case.name / "evaluation", **asked)
    return {"linear": outcome["test_top1_last_epoch"], "knn": outcome["knn_plain_top1"]}


# ---- table ----------------------------------------------------------------------------------------------------------


def parted(runs):
    """Those of the search, untrained encoders, and what was trained to the end."""
    evaluated = [run for run in runs if "linear" in run]
    tried = [run for run in runs if "held_out" in run]
    return tried, [run for run in evaluated if run["epochs"] == 0], [run for run in evaluated if run["epochs"] > 0]


def by(runs, *keys):
    """Runs by these of their values, in the order of recipes and batch sizes."""
    found = {}
    for run in sorted(runs, key=lambda run: (list(RECIPES).index(run["recipe"]), run["batch"], OBJECTIVES.index(run["objective"]))):
        found.setdefault(tuple(run[key] for key in keys), []).append(run)
    return found


def spread(runs, key):
    values = [run[key] for run in runs]
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def difference(both, key):
    """FlatCLR's lead; its deviation over the seeds that both have."""
    by_seed = [{run["seed"]: run[key] for run in both if run["objective"] == objective} for objective in OBJECTIVES]
    leads = [by_seed[1][seed] - by_seed[0][seed] for seed in by_seed[0] if seed in by_seed[1]]
    if not leads:
        return ""
    return f"{statistics.mean(leads):+.1f}" + (f" ± {statistics.stdev(leads):.1f}" if len(leads) > 1 else "")


def tables(tried, before, finals):
    """Of each size of training: what it gave, the differences, the cost, and what the search had found."""
    texts = []
    for _, mine in sorted(by(finals, *plots.CIFAR_SIZE).items()):
        one = mine[0]
        cards = ", ".join(sorted({run["card"] or run["cpu"] for run in mine}))
        about = f"{one['data']}, {one['model']}, {one['stem']} stem, {one['images']:,} images, {one['epochs']} epochs. On {cards}."
        leads = [[*of, *(difference(both, key) for key in ("linear", "knn"))] for of, both in by(mine, "recipe", "batch").items()]
        texts += [
            about, accuracies(mine, plots.begun_alike(one, before)), "FlatCLR's lead in points, over seeds that both have:",
            markdown(["recipe", "batch", "linear", "20 neighbours"], leads),
            "Until the neighbours in training reach what they do in all of these:", until_alike(mine),
            "The search: percent of held-out training images, over the factor of the rate:",
            searches(plots.begun_alike(one, tried)),
        ]  # fmt: skip
    return "\n\n".join(texts) + "\n"


def accuracies(finals, before):
    head = ["recipe", "batch", "objective", "lr", "seeds", "linear top-1 (%)", "20 neighbours (%)", "NESS", "MI / ceiling",
            "vanished pulls (%)", "seconds", "memory (MiB)"]  # fmt: skip
    lines = []
    for (recipe, batch, objective), mine in by(finals, "recipe", "batch", "objective").items():
        mean = lambda value: statistics.mean(value(run["curve"][-1]) for run in mine)
        share = mean(lambda row: row["mi_estimate_nats"] / row["mi_ceiling_nats"])
        lines.append([
            recipe, batch, plots.short_name(objective), f"{mine[0]['lr']:.3g}", len(mine), spread(mine, "linear"), spread(mine, "knn"),
            f"{mean(lambda row: row['ness_mean']):.3f}", f"{share:.2f}", f"{100 * mean(lambda row: row['vanished_pull_share']):.1f}",
            f"{statistics.mean(run['seconds'] for run in mine):.0f}", f"{max(run['memory_mib'] for run in mine):.0f}",
        ])  # fmt: skip
    if before:
        lines.append(["", "", "untrained", "", len(before), spread(before, "linear"), spread(before, "knn"), *[""] * 5])
    return markdown(head, lines)


def until_alike(finals):
    """Seconds and epochs to an accuracy that every training reaches: kNN during training, the same images for all."""
    level, lines = math.floor(min(max(found for _, found in run["knn_curve"]) for run in finals)), []
    for (recipe, batch, objective), mine in by(finals, "recipe", "batch", "objective").items():
        first = [next(epoch for epoch, found in run["knn_curve"] if found >= level) for run in mine]
        seconds = [sum(run["images"] / row["images_per_second"] for row in run["curve"][:to]) for run, to in zip(mine, first)]
        lines.append([recipe, batch, plots.short_name(objective), f"{statistics.mean(seconds):.0f}", f"{statistics.mean(first):.1f}"])
    return markdown(["recipe", "batch", "objective", f"seconds to {level}%", "epochs"], lines)


def searches(tried):
    factors, lines = sorted({run["factor"] for run in tried}), []
    for (recipe, batch, objective, epochs), mine in by(tried, "recipe", "batch", "objective", "epochs").items():
        found = {run["factor"]: f"{run['held_out']:.1f}" for run in mine}
        lines.append([recipe, batch, plots.short_name(objective), epochs, *(found.get(factor, "") for factor in factors)])
    return markdown(["recipe", "batch", "objective", "epochs", *(f"{factor:g}" for factor in factors)], lines)
