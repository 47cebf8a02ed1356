"""Running flatnce: where it is, its command lines, the files that it leaves, and its memory seen from outside."""

import functools
import glob
import importlib.util
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEER = Path(__file__).resolve().parent / "peer.py"
CORES = len(os.sched_getaffinity(0))
# Trainings whose checkpoints nobody needs, timed.
NO_FILES = {"save_every_n_epochs": 1000, "knn_every": 0}
# So much of what a program said last goes into a message.
LAST_WORDS = 600

# The script whose messages these are.
script = "bench"
# Whether every command and what it said is printed too, for a log.
log_commands = False


class Failed(Exception):
    """Something did not do what it was asked to; the text says what, with its last words."""


# ---- where the programs are -----------------------------------------------------------------------------------------


def target_directory():
    found = os.environ.get("CARGO_TARGET_DIR")
    if not found:
        command = ["cargo", "metadata", "--no-deps", "--format-version=1"]
        found = json.loads(subprocess.check_output(command, cwd=ROOT))["target_directory"]
    return ROOT / found


@functools.cache
def binary():
    if given := os.environ.get("FLATNCE_BINARY"):
        return given
    path = target_directory() / "release" / "flatnce"
    if not path.exists():
        raise Failed(f"{path} is not there; run scripts/bench.sh, or cargo build --release")
    return str(path)


def use(path):
    """This program from now on, which may have been built on another machine: the libtorch of this interpreter's PyTorch is
    here with its CUDA part, and in the wheels beside it what that part needs."""
    if not os.access(path, os.X_OK):
        raise Failed(f"{path}: no such program")
    found = {name: importlib.util.find_spec(name) for name in ("torch", "nvidia")}
    if found["torch"] is None:
        raise Failed(f"{sys.executable} lacks torch, whose libtorch {path} is to use")
    roots = map(Path, found["nvidia"].submodule_search_locations) if found["nvidia"] else []
    libraries = [Path(found["torch"].origin).parent / "lib", *sorted(place for root in roots for place in root.glob("*/lib"))]
    earlier = [os.environ["LD_LIBRARY_PATH"]] if os.environ.get("LD_LIBRARY_PATH") else []
    os.environ["LD_LIBRARY_PATH"] = ":".join([*map(str, libraries), *earlier])
    os.environ["FLATNCE_BINARY"] = os.path.abspath(path)


@functools.cache
def bench_executable(name):
    """The program that `cargo bench --bench NAME` runs, built if need be."""
    if given := os.environ.get(f"FLATNCE_{name.upper()}"):
        return given
    command = ["cargo", "bench", "--no-run", "--quiet", "--bench", name, "--message-format=json"]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    messages = [json.loads(line) for line in lines if line.startswith("{")]
    built = [m for m in messages if m.get("executable") and m["target"]["name"] == name]
    return built[-1]["executable"]


# ---- one run to its end ---------------------------------------------------------------------------------------------


def command(*words, **flags):
    """The program with words and flags: batch_size=64 is --batch-size=64."""
    return [binary(), *map(str, words), *(f"--{name.replace('_', '-')}={value}" for name, value in flags.items())]


def outcome(command, preexec=None):
    """Runs a command to its end: status, standard output, standard error."""
    command = [str(word) for word in command]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=preexec)
    if log_commands:
        print(f"$ {shlex.join(command)}\n{done.stdout[-4000:]}{done.stderr}[status {done.returncode}]", flush=True)
    return done.returncode, done.stdout, done.stderr


def failed(command, status, said):
    text = " ".join([Path(str(command[0])).name, *map(str, command[1:])])
    return Failed(f"{text} ended with status {status}: {said.strip()[-LAST_WORDS:]}")


def call(*words, **flags):
    """What a run said that must end well: its standard output, then its standard error."""
    asked = command(*words, **flags)
    status, said, errors = outcome(asked)
    if status != 0:
        raise failed(asked, status, errors.strip() or said)
    return said + errors


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


def below(results, said=""):
    found = next(Path(results).rglob("config.yml"), None)
    if found is None:
        raise Failed(f"{results} holds no run, although the program ended well")
    return Run(found.parent, said)


def train(results, **flags):
    """A training in a directory of its own."""
    shutil.rmtree(results, ignore_errors=True)
    return below(results, call(save_dir=results, **flags))


def trained(place, epochs, **flags):
    """A finished training below `place`: kept, resumed, or made now."""
    done = place / "done.json"
    if not done.exists():
        found = sorted(place.glob("*/*/*/config.yml"))
        if found and list(found[-1].parent.glob("checkpoint_*.pth.tar")):
            call("--quiet", resume=found[-1].parent)
        else:
            call("--quiet", **flags, epochs=epochs, save_dir=place)
            found = sorted(place.glob("*/*/*/config.yml"))
        done.write_text(json.dumps({"directory": str(found[-1].parent)}))
    return Run(Path(json.loads(done.read_text())["directory"]))


def evaluated(place, **flags):
    """linear_eval.json of an evaluation below `place`: kept, or made now."""
    place = Path(place)
    if not list(place.rglob("linear_eval.json")):
        call("--quiet", train_mode="eval", **flags, save_dir=place)
    return json.loads(next(place.rglob("linear_eval.json")).read_text())


def views(place, **flags):
    """u8 [steps, 2B, S, S, 3], as the training sees them."""
    from safetensors.torch import load_file

    place.mkdir(parents=True, exist_ok=True)
    file = place / "views.safetensors"
    call("preview", **flags, views=file, out=place / "views.png")
    found = load_file(file)["views"]
    file.unlink()
    return found


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


class Runs:
    """Works that run beside each other, `width` at once. Asking for one waits for it, and raises what it raised."""

    def __init__(self, width):
        self.pool, self.started = futures.ThreadPoolExecutor(width), {}

    def start(self, name, work, *arguments, **named):
        """Works start in this order, so one may ask for those before it."""
        self.started[name] = self.pool.submit(work, *arguments, **named)

    def __getitem__(self, name):
        return self.started[name].result()


# ---- several processes, and the peers -------------------------------------------------------------------------------

# For a rank to end after another has failed: it has its own words for it, or would wait until its time is over.
LAST_SECONDS = 15


def ranks(command, count, place, preexec=None):
    """Runs a job of several ranks on this machine: what the first one said. `place(rank)` is what the environment of each has
    beside a launcher's variables; `preexec(rank)` is called in its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        job = {"RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **place(rank)}
        children.append(subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **{name: str(value) for name, value in job.items()}}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=preexec and functools.partial(preexec, rank),
        ))  # fmt: skip
    # All are read at once: one whose pipe is full would wait for its reader, and the others for it.
    with futures.ThreadPoolExecutor(count) as pool:
        waiting = reading = [pool.submit(child.communicate) for child in children]
        while waiting and not any(child.returncode for child in children):
            _, waiting = futures.wait(waiting, return_when=futures.FIRST_COMPLETED)
        futures.wait(waiting, timeout=LAST_SECONDS)
        for child in children:
            child.terminate()
        said = [one.result()[0] for one in reading]
    for rank, text in enumerate(said):
        if log_commands:
            print(f"rank {rank}:\n{text[-4000:]}", flush=True)
    for rank, (child, text) in enumerate(zip(children, said)):
        if child.returncode != 0:
            raise Failed(f"rank {rank} of {count} ended with status {child.returncode}: {text.strip()[-LAST_WORDS:]}")
    return said[0]


def peer_command(manners, *words, **flags):
    """peer.py for {manner: (warm, steps, blocks)}."""
    asked = [":".join(map(str, [manner, *counts])) for manner, counts in manners.items()]
    return [sys.executable, str(PEER), "steps", *asked, *words, *(f"--{name}={value}" for name, value in flags.items())]


def peers(manners, *words, started=lambda child: None, environment=None, **flags):
    """What peer.py says of its manners, each as soon as it is known; what cannot be measured has an "error"."""
    asked, missing = peer_command(manners, *words, **flags), dict(manners)
    if log_commands:
        print(f"$ {shlex.join(asked)}", flush=True)
    with subprocess.Popen(asked, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}) as child:
        started(child)
        for line in child.stdout:
            if log_commands:
                print(line[:2000], end="", flush=True)
            if line.startswith("{"):
                one = json.loads(line)
                del missing[one["manner"]]
                yield one
    for manner in missing:
        yield {"manner": manner, "error": f"the process ended with status {child.returncode}; its words stand above"}


# ---- a training that is timed ---------------------------------------------------------------------------------------


def tree(process):
    """The process and everything below it."""
    found, waiting = [], [process]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                waiting.extend(int(child) for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        except OSError:
            pass
    return found


def memory_mib(process):
    """Memory of a process tree: the sum of the proportional sizes (PSS), so that shared pages count once."""
    total = 0
    for pid in tree(process):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


class Watch:
    """The peak of a process tree's memory while it runs, looked at every half second."""

    def __init__(self, process):
        self.process, self.peak_mib, self.going = process, 0.0, True
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def _look(self):
        while self.going:
            self.peak_mib = max(self.peak_mib, memory_mib(self.process))
            time.sleep(0.5)

    def stop(self):
        self.going = False
        self.thread.join()
        return self.peak_mib


class Timed:
    """A training whose epochs are timed by when their lines reach metrics.jsonl (`arrivals`, seconds since 1970), so that
    all between two steps counts, and the end of an epoch too. `rows` are the lines, `words` what the program said.

    `during(epochs)` is called again and again with the number of epochs that are done. With `memory` false nobody looks at
    it (a GPU's mappings make looking slow).
    """

    def __init__(self, directory=None, during=None, memory=True, **flags):
        with tempfile.TemporaryDirectory(dir=directory) as place:
            asked = command(**NO_FILES, **flags, save_dir=place)
            if log_commands:
                print(f"$ {shlex.join(asked)}", flush=True)
            said, self.begun = Path(place) / "said", time.time()
            with open(said, "w") as output:
                child = subprocess.Popen(asked, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
            watch, self.arrivals, file = Watch(child.pid) if memory else None, [], None
            while child.poll() is None:
                if file is None:
                    # Of the module glob, which passes over a directory that goes while it looks.
                    file = next(map(Path, glob.iglob(f"{place}/**/metrics.jsonl", recursive=True)), None)
                elif (lines := file.read_bytes().count(b"\n")) > len(self.arrivals):
                    self.arrivals += [time.time()] * (lines - len(self.arrivals))
                if during:
                    during(len(self.arrivals))
                time.sleep(0.004)
            self.peak_mib = watch.stop() if watch else None
            text = said.read_text()
            if log_commands:
                print(text, flush=True)
            if child.returncode != 0 or file is None:
                raise failed(asked, child.returncode, text)
            self.words = text.splitlines()
            self.rows = [json.loads(line) for line in file.read_text().splitlines()]
        self.arrivals += [time.time()] * (len(self.rows) - len(self.arrivals))
