"""The paper's claim on CIFAR-10: both objectives at every batch size, by two recipes, to the end of a training.

For every recipe and batch size the learning rate is a rule times a factor. Both objectives try the same factors in short
trainings, judged on a fifth of the training images; where the best factor of either lies at an edge, both try one more. The
chosen one is trained from every seed and judged on the 10,000 test images. Nothing is chosen on test images, and nothing for
one side alone.

OUT/cifar.json has every training that is finished, with its machine: whatever stands there is not trained again, here or on
another machine. The most telling come first: both objectives at the smallest and at the middle batch size, one seed.
"""

import json
import math
import os
import shlex
import statistics
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Callable

import batch as study_batch
import common
import plots
import program
from batch import OBJECTIVES, spread
from common import markdown, say
from program import Failed

# How often the search may go on beyond an edge.
MORE = 4
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

    @property
    def name(self):
        size = f"e{self.epochs}_n{self.images}_{self.model}_{self.stem}"
        return f"cifar_{self.recipe}_{self.objective}_b{self.batch}_f{self.factor:g}_s{self.seed}_{size}"

    @property
    def lr(self):
        return RECIPES[self.recipe].rate(self.batch) * self.factor

    def flags(self):
        recipe = RECIPES[self.recipe]
        return {
            **recipe.flags, "clr": self.objective, "batch_size": self.batch, "lr": f"{self.lr:.6g}", "seed": self.seed,
            "temperature": 0.1, "warmup_epochs": recipe.warm_up(self.epochs), "train_images": self.images, "stem": self.stem,
        }  # fmt: skip


class OutOfTime(Exception):
    """The next training would not end in time."""


class Book:
    """OUT/cifar.json: what is finished, by the names of the trainings."""

    def __init__(self, study):
        self.study, self.path, self.begun, self.lock = study, study.out / "cifar.json", time.monotonic(), threading.RLock()
        content = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.runs, self.commands = content.get("runs", {}), content.get("commands", [])
        where = common.surroundings()
        self.place = {"cpu": where["machine"]["cpu"], "device": study.options.device, "card": card(study.options.device)}
        self.place |= {"commit": where["commit"], "torch": where["versions"]["torch"], "data": study.data_name}
        self.place["at_once"] = study.options.at_once

    def result(self, case, work):
        """What is known of a training, or `work()` now, if that can end in time."""
        if case.name not in self.runs:
            self.check_time(case)
            say(case.name)
            begun = time.monotonic()
            found = work()
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
        command = "./scripts/reproduce.sh " + shlex.join(self.study.words)
        self.commands = list(dict.fromkeys([*self.commands, command]))
        recipes = {name: recipe.about for name, recipe in RECIPES.items()}
        common.write_json(self.path, {"commands": self.commands, "recipes": recipes, "runs": self.runs})

    def draw(self):
        finals = [run for run in self.runs.values() if "linear" in run and run["epochs"] > 0]
        before = [run for run in self.runs.values() if "linear" in run and run["epochs"] == 0]
        if finals:
            common.replace(self.study.out / "cifar.md", tables(finals, before))
            plots.cifar(finals, before, RECIPES, self.study.out)


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
    if options.at_once > 1 and book.place["card"] is None:
        # Of trainings beside each other each has its share of the cores: threads that wait for each other would stand still.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, program.CORES // options.at_once)))
    if options.draw:
        if not book.runs:
            raise Failed(f"{book.path} holds no trainings yet; leave --draw out to make some")
        return book.draw()
    left = plan(options)
    try:
        for place, (recipe, batch, seed) in enumerate(left):
            factors, size = search(study, book, recipe, batch), (options.epochs, options.images, options.model, options.stem)
            cases = [Case(recipe, objective, batch, factors[objective], seed, *size) for objective in OBJECTIVES]
            beside(study, [lambda case=case: final(study, book, case) for case in cases])
            untrained(study, book, seed)
            book.draw()
            left[place] = None
    except OutOfTime as reason:
        waiting = 2 * sum(one is not None for one in left)
        say(f"no time for more: {reason}; about {waiting} trainings wait, and the same command goes on with them")
    book.write()
    book.draw()
    print((study.out / "cifar.md").read_text() if (study.out / "cifar.md").exists() else "nothing is finished yet")


def beside(study, works):
    """What they give; as many at once as was asked for."""
    runs = program.Runs(study.options.at_once)
    for number, work in enumerate(works):
        runs.start(number, work)
    return [runs[number] for number in range(len(works))]


def search(study, book, recipe, batch):
    """The factor for each objective. Both try the same ones."""
    options, tried = study.options, {objective: {} for objective in OBJECTIVES}
    factors = sorted(options.factors)
    for more in range(MORE + 1):
        size = (options.search_epochs, options.search_images, options.model, options.stem)
        new = [(objective, factor) for factor in factors for objective in OBJECTIVES if factor not in tried[objective]]
        cases = [Case(recipe, objective, batch, factor, 0, *size) for objective, factor in new]
        work = lambda case: book.result(case, lambda: {"held_out": judged(study, case)})
        for (objective, factor), found in zip(new, beside(study, [lambda case=case: work(case) for case in cases])):
            tried[objective][factor] = found["held_out"]
        best = {objective: max(found, key=found.get) for objective, found in tried.items()}
        factors = sorted(factors)
        low, high = (edge in best.values() for edge in (factors[0], factors[-1]))
        if not low and not high or more == MORE:
            return best
        factors = [*([factors[0] / 2] if low else []), *factors, *([factors[-1] * 2] if high else [])]


def judged(study, case):
    made = trained(study, case, knn_every=0)
    return study_batch.held_out(study, made, study.options.runs / case.name, case.images)


def trained(study, case, **flags):
    files = {"save_every_n_epochs": max(1, case.epochs // 10), "keep_last": 1}
    return study.pretrained(case.name, case.epochs, **case.flags(), **files, **flags)


def final(study, book, case):
    def work():
        made = trained(study, case, knn_every=math.ceil(case.epochs / 10))
        epochs = made.lines("metrics.jsonl")
        seconds = sum(row["epoch_seconds"] for row in epochs)
        memory = max(row["memory_peak_mib"] for row in epochs)
        knn = [[row["epoch"] + 1, row["knn_top1"]] for row in epochs if row.get("knn_top1") is not None]
        curve = [{key: row.get(key) for key in KEPT} for row in epochs]
        return {**evaluated(study, made, case.name), "seconds": seconds, "memory_mib": memory, "knn_curve": knn, "curve": curve}

    return book.result(case, work)


def untrained(study, book, seed):
    """The encoder that the trainings of a seed begin with."""
    options = study.options
    case = Case("sgd", "flatclr", max(options.batches), 1.0, seed, 0, options.images, options.model, options.stem)
    return book.result(case, lambda: evaluated(study, trained(study, case), case.name))


def evaluated(study, made, name):
    outcome = study_batch.judge(study, made, name, train_images=study.options.labelled)
    return {"linear": outcome["test_top1_last_epoch"], "knn": outcome["knn_plain_top1"]}


# ---- table ----------------------------------------------------------------------------------------------------------


def groups(finals):
    """Trainings that differ in their seed alone, by (recipe, batch), objective."""
    found = {}
    for run in sorted(finals, key=lambda run: (list(RECIPES).index(run["recipe"]), run["batch"])):
        size = tuple(run[key] for key in plots.CIFAR_SIZE)
        found.setdefault((run["recipe"], run["batch"], *size), {}).setdefault(run["objective"], []).append(run)
    return found


def difference(pair, key):
    """FlatCLR's lead; its deviation over the seeds that both have."""
    by_seed = [{run["seed"]: run[key] for run in pair.get(objective, [])} for objective in OBJECTIVES]
    leads = [by_seed[1][seed] - by_seed[0][seed] for seed in by_seed[0] if seed in by_seed[1]]
    if not leads:
        return ""
    return f"{statistics.mean(leads):+.1f}" + (f" ± {statistics.stdev(leads):.1f}" if len(leads) > 1 else "")


def tables(finals, before):
    head = ["recipe", "batch", "objective", "lr", "seeds", "linear top-1 (%)", "20 neighbours (%)", "NESS", "MI / ceiling",
            "vanished pulls (%)", "seconds", "memory (MiB)"]  # fmt: skip
    lines, leads = [], []
    for (recipe, batch, *size), pair in groups(finals).items():
        for objective in OBJECTIVES:
            if not (mine := pair.get(objective)):
                continue
            last = [run["curve"][-1] for run in mine]
            mean = lambda value: statistics.mean(map(value, last))
            accuracies = [spread(mine, key) for key in ("linear", "knn")]
            facts = [f"{mean(lambda row: row['ness_mean']):.3f}", f"{mean(lambda row: row['mi_estimate_nats'] / row['mi_ceiling_nats']):.2f}"]
            facts += [f"{100 * mean(lambda row: row['vanished_pull_share']):.1f}"]
            cost = [f"{statistics.mean(run['seconds'] for run in mine):.0f}", f"{max(run['memory_mib'] for run in mine):.0f}"]
            lines.append([recipe, batch, plots.NAMES[objective].split()[0], f"{mine[0]['lr']:.3g}", len(mine), *accuracies, *facts, *cost])
        leads.append([recipe, batch, *(difference(pair, key) for key in ("linear", "knn"))])
    if before:
        lines.append(["", "", "untrained", "", len(before), *(spread(before, key) for key in ("linear", "knn"))] + [""] * 5)
    sizes = sorted({f"{r['data']}, {r['model']}, {r['stem']} stem, {r['images']:,} images, {r['epochs']} epochs" for r in finals})
    cards = sorted({r["card"] or r["cpu"] for r in finals})
    about = "; ".join(sizes) + ". On " + ", ".join(cards) + ".\n\n"
    return (
        about + markdown(head, lines) + "\n\nFlatCLR's lead in points, over seeds that both have:\n\n"
        + markdown(["recipe", "batch", "linear", "20 neighbours"], leads) + "\n"
    )  # fmt: skip
