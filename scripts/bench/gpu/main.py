"""Runs the stages of prove_gpu.sh, each a process group of its own under a time limit; --help says the rest.

What a stage finds is in DIR/results.jsonl at once, what its programs said in DIR/stages.log; DIR/summary.txt and gpu.json
are written anew after every stage, so that they are there however this ends.
"""

import argparse
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
import common
import program
import report

GRACE_SECONDS = 5
# Stages that time nothing run beside each other, each with about so many cores.
CORES_EACH = 3
# In --smoke a stage may take so many times its limit: processors of continuous integration are slow.
SMOKE_PATIENCE = 5


@dataclass(frozen=True)
class Stage:
    """The work of a stage is the function of its name in `module`."""

    name: str
    # About what it takes on one H200 with 16 cores; a stage begins only where half of this is left.
    seconds: int
    # After so many its processes are ended and what it has found stands.
    limit: int
    module: str
    about: str = ""
    # What must have been made beforehand.
    needs: tuple = ()
    # Whether the others are worth as much without it.
    optional: bool = False


# The most valuable first.
PLAN = [
    # The first to start reads gigabytes of libraries from the disk.
    Stage("doctor", 15, 120, "checks", "flatnce doctor; if it finds anything wrong, nothing else is run (--skip doctor\n"
          "runs the others all the same)"),
    Stage("trainings", 20, 120, "checks", "three small trainings: bf16 + LARS, fp16 + Adam, streamed + parts + SGD"),
    Stage("checks", 40, 120, "checks", "loss, gradients and an epoch's losses against PyTorch; exact resuming;\n"
          "both engines' pixels"),
    Stage("devices", 35, 120, "itself", "checkpoints from GPU to CPU and back, evaluations on both; fp16's scaler"),
    Stage("replay", 30, 120, "itself", "the step as a CUDA graph, and the fused kernels, against the plain step"),
    Stage("small", 80, 160, "table", "res18, 32 px, batch 512 and 32: against torch.compile and eager PyTorch;\n"
          "how busy the device is; peak memory", ("data", "warm")),
    Stage("large", 65, 150, "table", "res50, 224 px, images on the device, against torch.compile", ("data", "warm")),
    Stage("files", 55, 120, "table", "res50, 224 px, from JPEG files, against images on the device", ("data",)),
    Stage("share", 20, 80, "table", "the augmentation's share of a step", ("data",)),
    Stage("recipes", 60, 120, "table", "the rows of res18 against main.py's recipe and its faster version", ("data",)),
    Stage("variants", 40, 120, "table", "the rows of res18 without the fused kernels, and without graphs", ("data",)),
    Stage("memory", 40, 100, "memory", "--dry-run's estimate; what running out of memory says", ("data",)),
    Stage("ranks", 25, 90, "itself", "two processes on one card against one"),
    Stage("kernels", 50, 120, "kernels", "where a step's time goes: ncu of ours, the profiler of torch.compile", ("data", "warm")),
    Stage("study", 30, 90, "checks", "FlatCLR and SimCLR at batch 32"),
]  # fmt: skip
# Made beside the stages that time nothing, and waited for before the first that does; their limits count from their start.
# What "warm" has not compiled by then the peers compile themselves.
BACKGROUND = [Stage("data", 10, 90, "data"), Stage("warm", 110, 190, "timing", needs=("data",), optional=True)]
NAMES = [stage.name for stage in PLAN]

HELP = """Usage: ./scripts/prove_gpu.sh --out DIR [OPTION...]

Needs a Python 3.11 or newer with PyTorch 2.11, torchvision, safetensors and NumPy; no
network, and with --binary no compiler. The stages, the most valuable first, with the
seconds that they took, about, on one H200 and 16 cores:

{stages}

What times nothing (trainings, checks, devices, replay, ranks, study) runs first, a stage
for every three cores at once, and beside it the data are made and torch.compile's cache is
filled (160 s). All that is waited for before anything is timed. What was not run is named
at the end, and --only runs it; with --keep in both calls the second makes and compiles
nothing anew. Every stage has a time limit, and one that fails does not stop the next.

DIR gets results.jsonl (a line a result, when it is known), summary.txt, gpu.json (every
number, its target, the card, the versions), stages.log, kernels.csv and curves.png.

{options}

Exit code: 0 if no stage failed, 1 if one did, 2 for wrong options."""


# ---- options --------------------------------------------------------------------------------------------------------


def wrong(text, hint="./scripts/prove_gpu.sh --help"):
    print(f"bench: error: {text}\n  {hint}", file=sys.stderr)
    sys.exit(2)


class Parser(argparse.ArgumentParser):
    def format_help(self):
        named = lambda stage: f"  {stage.name:<9} {stage.seconds:4}  " + stage.about.replace("\n", "\n" + " " * 18)
        options = super().format_help().partition("options:\n")[2].rstrip()
        return HELP.format(stages="\n".join(map(named, PLAN)), options=options) + "\n"

    def error(self, message):
        option, _, what = message.removeprefix("argument ").partition(": ")
        needs = "file" if option in ("--binary", "--measure", "--python") else "value"
        wrong(f"{option} needs a {needs}." if what == "expected one argument" else f"{option} {what}")


def value(text):
    if not text:
        raise argparse.ArgumentTypeError("needs a value.")
    return text


def path(text):
    return Path(os.path.abspath(value(text)))


def executable(text):
    if not os.path.isfile(text) or not os.access(text, os.X_OK):
        raise argparse.ArgumentTypeError(f"{text}: no such program.")
    return os.path.abspath(text)


def device(text):
    if not re.fullmatch(r"cpu|cuda:\d+", text):
        raise argparse.ArgumentTypeError(f"{text} is neither cuda:N nor cpu.")
    return text


def some(text):
    chosen = value(text).split(",")
    if unknown := [name for name in chosen if name not in NAMES]:
        raise argparse.ArgumentTypeError(f"'{unknown[0]}' is none of: {' '.join(NAMES)}")
    return chosen


def arguments():
    shape = lambda prog: argparse.HelpFormatter(prog, max_help_position=17, width=100)
    parser = Parser(allow_abbrev=False, formatter_class=shape)
    add = parser.add_argument
    add("--out", metavar="DIR", type=path, help="where the results go")
    add("--device", metavar="D", type=device, default="cuda:0", help="cuda:N (default: cuda:0), or cpu with --smoke")
    add("--binary", metavar="FILE", type=executable, help="this flatnce instead of building one, with the libtorch of that PyTorch")
    add("--measure", metavar="FILE", type=executable, help="this benches/measure (target/release/deps/measure-*), with --binary, "
        "for the augmentation's share")
    add("--python", metavar="FILE", type=executable, help="this interpreter (default: the one that scripts/setup.sh --python makes "
        "if it is there, else python3)")
    add("--only", metavar="S,...", type=some, default=NAMES, help="these stages alone, and what they need")
    add("--skip", metavar="S,...", type=some, default=[], help="not these")
    add("--minutes", metavar="N", type=float, default=9.0, help="for all of it (default: 9)")
    add("--json", metavar="FILE", type=path, help="instead of DIR/gpu.json")
    add("--at-once", metavar="N", type=int, help="stages that time nothing beside each other (default: one for three cores; "
        "with --smoke one)")
    add("--keep", metavar="DIR", type=path, help="the made data and torch.compile's cache go there and stay, for another call")
    add("--smoke", action="store_true", help="tiny sizes: whether the script works")
    # What a process of one stage is told beside these.
    add("--stage", help=argparse.SUPPRESS)
    add("--place", type=Path, help=argparse.SUPPRESS)
    options, unknown = parser.parse_known_args()
    if unknown:
        wrong(f"'{unknown[0]}' is no option.")
    if options.out is None:
        wrong("--out is missing: where do the results go?", "./scripts/prove_gpu.sh --out DIR")
    if options.device == "cpu" and not options.smoke:
        wrong("--device cpu goes with --smoke: the full sizes would take a CPU days.")
    return options


def prepare(options):
    """What the stages need: Python's packages, found and not imported, and the programs."""
    found = {name: importlib.util.find_spec(name) for name in ("numpy", "safetensors", "torch", "torchvision")}
    missing = [name for name, spec in found.items() if spec is None]
    if sys.version_info < (3, 11) or missing:
        why = f"lacks {', '.join(missing)}" if missing else f"is Python {sys.version.split()[0]}, not 3.11 or newer"
        wrong(f"{sys.executable} cannot run this: it {why}.", "--python FILE, or ./scripts/setup.sh --python")
    if options.binary:
        program.use(options.binary)
    else:
        for words in (["build", "--release"], ["bench", "--no-run", "--bench", "measure"]):
            subprocess.run(["cargo", *words, "--quiet"], cwd=program.ROOT, stdout=sys.stderr, check=True)
    if options.measure:
        os.environ["FLATNCE_MEASURE"] = options.measure
    # cuBLAS wants it for --deterministic, and it costs nothing without.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"


# ---- one stage ------------------------------------------------------------------------------------------------------


def run_stage(options):
    """In a process of its own."""
    stage = next(stage for stage in PLAN + BACKGROUND if stage.name == options.stage)
    if options.smoke:
        # Several programs share few cores: threads that wait for each other cost minutes.
        os.environ["OMP_NUM_THREADS"] = "1"
    elif stage in BACKGROUND or not stage.needs:
        # Something else of ours is at work meanwhile.
        os.environ.setdefault("OMP_NUM_THREADS", "8")
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    begun, program.log_commands = time.monotonic(), True
    (options.place / stage.name).mkdir(parents=True, exist_ok=True)
    found = report.Report(options.out / "results.jsonl", stage.name)
    found.attempt(f"{stage.name} comes to its end", lambda: getattr(importlib.import_module(stage.module), stage.name)(options, found))
    if stage in BACKGROUND:
        found.note(f"ready after {time.monotonic() - begun:.0f} s")
    sys.exit(1 if found.failures else 0)


class Child:
    """A stage under way, with all that it starts."""

    def __init__(self, stage, options, log):
        self.stage, self.begun = stage, time.monotonic()
        words = [sys.executable, __file__, *sys.argv[1:], f"--stage={stage.name}", f"--place={options.place}"]
        log.write(f"\n== {stage.name}\n")
        log.flush()
        self.child = subprocess.Popen(
            words, cwd=program.ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
        )  # fmt: skip

    def wait(self, limit):
        """'done', 'failed' or 'stopped at its limit', and the seconds since its start: none of its processes is left then."""
        try:
            state, grace = "done" if self.child.wait(max(limit, 0.1)) == 0 else "failed", 0
        except subprocess.TimeoutExpired:
            state, grace = "stopped at its limit", GRACE_SECONDS
        self.end(grace)
        return state, time.monotonic() - self.begun

    def end(self, grace=GRACE_SECONDS):
        """Asks what is left to end and waits a little, so that what works on a GPU can leave it in order; then ends it."""
        until = time.monotonic() + grace
        try:
            os.killpg(self.child.pid, signal.SIGTERM)
            while time.monotonic() < until:
                self.child.poll()
                os.killpg(self.child.pid, 0)
                time.sleep(0.05)
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()


# ---- all stages -----------------------------------------------------------------------------------------------------


class Driver:
    def __init__(self, options):
        self.options, self.failed, self.not_run = options, [], []
        self.begun = time.monotonic()
        self.results, self.log = options.out / "results.jsonl", open(options.out / "stages.log", "a")
        # Children under way, by the names of their stages; and who writes.
        self.children, self.where, self.lock = {}, common.surroundings(), threading.RLock()

    def run(self):
        stages = [stage for stage in PLAN if stage.name in self.options.only and stage.name not in self.options.skip]
        healthy = True
        try:
            if stages and stages[0].name == "doctor":
                healthy = self.stage(stages.pop(0))
            for stage in BACKGROUND:
                if healthy and any(stage.name in other.needs for other in stages):
                    self.start(stage)
            attempt = lambda stage: self.attempt(stage, healthy)
            with self.beside() as pool:
                list(pool.map(attempt, [stage for stage in stages if not stage.needs]))
            for stage in stages:
                if stage.needs:
                    attempt(stage)
        finally:
            self.end()
            self.write()

    @contextmanager
    def beside(self):
        """Threads that each wait for a stage. Whatever ends this ends the stages, or it would wait for them."""
        width = self.options.at_once or (1 if self.options.smoke else max(1, program.CORES // CORES_EACH))
        with ThreadPoolExecutor(width) as pool:
            try:
                yield pool
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.end()
                raise

    def attempt(self, stage, healthy):
        if not healthy:
            self.leave_out(stage, "not run: the doctor failed")
        elif self.left() <= (0 if self.options.smoke else stage.seconds / 2):
            self.leave_out(stage, "not run: no time")
        else:
            if stage.needs:
                self.wait_beside()
            self.stage(stage)

    def end(self):
        for child in list(self.children.values()):
            child.end()

    def left(self):
        return self.begun + 60 * self.options.minutes - time.monotonic()

    def stage(self, stage):
        """Whether the stage came to its end with all its checks holding."""
        self.start(stage)
        return self.finish(stage)

    def start(self, stage):
        """With a log of its own, so that several may be under way."""
        self.children[stage.name] = Child(stage, self.options, open(self.options.out / f"{stage.name}.log", "w"))

    def wait_beside(self):
        """Nothing that compiles or writes may go on while something is timed."""
        for stage in BACKGROUND:
            if stage.name in self.children:
                self.finish(stage)

    def finish(self, stage):
        child = self.children[stage.name]
        own = child.begun + stage.limit * (SMOKE_PATIENCE if self.options.smoke else 1) - time.monotonic()
        state, seconds = child.wait(min(own, self.left()))
        del self.children[stage.name]
        with self.lock:
            log = self.options.out / f"{stage.name}.log"
            self.log.write(log.read_text(errors="replace"))
            self.log.flush()
            log.unlink()
        if state != "done" and not stage.optional:
            self.failed.append(stage.name)
        self.ended(stage, state, seconds, f"{state}, {seconds:.0f} s; {self.left():.0f} s are left")
        return state == "done"

    def leave_out(self, stage, why):
        self.not_run.append(stage.name)
        self.ended(stage, why, 0, why)

    def ended(self, stage, state, seconds, text):
        report.Report(self.results, stage.name).ended(state, seconds)
        common.say(f"{stage.name}: {text}")
        with self.lock:
            self.write()

    def write(self):
        """The summary and the file of all numbers, replaced at once."""
        results = report.read(self.results)
        text = report.text(results, [stage.name for stage in [PLAN[0], *BACKGROUND, *PLAN[1:]]])
        if self.options.smoke:
            text += "These sizes say only that the script works.\n"
        common.replace(self.options.out / "summary.txt", text)
        without = lambda one, *keys: {key: value for key, value in one.items() if key not in keys}
        of = lambda kind: [without(one, "kind") for one in results if one["kind"] == kind]
        facts = {key: value for one in of("facts") for key, value in without(one, "stage").items()}
        common.write_json(self.options.json or self.options.out / "gpu.json", {
            "part": "gpu", **self.where, "device": self.options.device, "smoke": self.options.smoke, **facts,
            "seconds": round(time.monotonic() - self.begun, 1),
            "stages": of("end"), "checks": of("check"), "rows": of("row"), "notes": of("note"),
        })  # fmt: skip


def main():
    options = arguments()
    if options.stage:
        run_stage(options)
    prepare(options)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("results.jsonl", "stages.log"):
        (options.out / name).unlink(missing_ok=True)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    options.place = options.keep or Path(tempfile.mkdtemp(prefix="flatnce-gpu-"))
    driver = Driver(options)
    try:
        driver.run()
    finally:
        print((options.out / "summary.txt").read_text(), end="", flush=True)
        if not options.keep:
            shutil.rmtree(options.place, ignore_errors=True)
    if driver.not_run:
        common.say(f"not run: {', '.join(driver.not_run)} (--only {','.join(driver.not_run)})")
    if driver.failed:
        raise program.Failed(f"failed: {', '.join(driver.failed)}; what was said stands in {options.out}/stages.log")


common.run_as("prove", main)
