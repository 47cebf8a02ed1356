"""Starting the program under test: trainings in directories of their own, several beside each other."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from report import Failed  # It knows where `common` is.

import common

DATA = ["--dataset-name=fashion_mnist_mini"]
# So much of what a program said last goes into a result; all of it stands in the stage's log.
LAST_WORDS = 600


def outcome(options, command, preexec=None, **more):
    """Runs a command to its end: status, standard output, standard error. Both go into the stage's log too."""
    command = [str(word) for word in command]
    done = subprocess.run(
        command, cwd=common.ROOT, capture_output=True, text=True, env={**os.environ, **more}, preexec_fn=preexec
    )
    print(f"$ {shlex.join(command)}\n{done.stdout[-4000:]}{done.stderr}[status {done.returncode}]", flush=True)
    return done.returncode, done.stdout, done.stderr


def call(options, command, **more):
    """What a command said that must end well: its standard output, then its standard error."""
    status, said, errors = outcome(options, command, **more)
    if status != 0:
        raise Failed(f"{failure(command, status)}: {(errors.strip() or said.strip())[-LAST_WORDS:]}")
    return said + errors


def failure(command, status):
    return f"{Path(str(command[0])).name} {' '.join(map(str, command[1:]))} ended with status {status}"


class Run:
    """The directory of a training and what it wrote; `said` is what the program printed."""

    def __init__(self, directory, said=""):
        self.directory, self.said = directory, said

    def lines(self, name):
        return [json.loads(line) for line in (self.directory / name).read_text().splitlines()]

    def losses(self):
        return [line["loss_infonce"] for line in self.lines("steps.jsonl")]

    def checkpoint(self, epochs):
        return self.directory / f"checkpoint_{epochs:04}.pth.tar"

    def words(self):
        """All lines for people: printed, then those of the log."""
        return (self.said + (self.directory / "training.log").read_text()).splitlines()


def train(options, name, *words, device=None, knn_every=0, **more):
    """A training in a directory of its own below the stage's place, on the embedded images."""
    results = options.place / options.stage / name
    shutil.rmtree(results, ignore_errors=True)
    command = [common.binary(), *DATA, f"--device={device or options.device}", f"--knn-every={knn_every}", f"--save-dir={results}", *words]
    said = call(options, command, **more)
    return below(results, said)


def resume(options, name, checkpoint, *words):
    """Goes on from a copy of a checkpoint, in a directory of its own."""
    directory = options.place / options.stage / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    shutil.copy(checkpoint, directory)
    return Run(directory, call(options, [common.binary(), f"--resume={directory}", *words]))


def below(results, said=""):
    found = next(results.rglob("config.yml"), None)
    if found is None:
        raise Failed(f"{results} holds no run, although the program ended well")
    return Run(found.parent, said)


class Runs:
    """Works that run beside each other, `width` at once. Asking for one waits for it, and raises what it raised."""

    def __init__(self, width):
        self.pool, self.futures = ThreadPoolExecutor(width), {}

    def start(self, name, work, *arguments, **named):
        """Works start in this order, so one may ask for those before it."""
        self.futures[name] = self.pool.submit(work, *arguments, **named)

    def __getitem__(self, name):
        return self.futures[name].result()


def width(options):
    """Trainings at once that only have to be right."""
    return 2 if options.smoke else 5


def weights(path):
    import torch

    return torch.load(path, weights_only=True, map_location="cpu")["model_state_dict"]


def same_bits(first, second):
    """Whether two checkpoints hold the same model."""
    import torch

    first, second = weights(first), weights(second)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def apart(first, second):
    """The largest difference of two curves."""
    if len(first) != len(second) or not first:
        raise Failed(f"one run has {len(first)} steps, the other {len(second)}")
    return max(abs(a - b) for a, b in zip(first, second))
