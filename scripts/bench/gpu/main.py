"""Runs the stages of plan.py, each a process group of its own under a time limit; prove_gpu.sh --help says the rest.

What a stage finds is in DIR/results.jsonl at once, what its programs said in DIR/stages.log; DIR/summary.txt and gpu.json
are written anew after every stage, so that they are there however this ends.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import plan
import report

import common

HERE = Path(__file__).resolve().parent
GRACE_SECONDS = 5


def arguments():
    names = [stage.name for stage in plan.PLAN]

    def some(text):
        chosen = text.split(",")
        if unknown := [name for name in chosen if name not in names]:
            raise argparse.ArgumentTypeError(f"'{unknown[0]}' is none of: {' '.join(names)}")
        return chosen

    parser = argparse.ArgumentParser(prog="prove_gpu.sh", add_help=False)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--only", type=some, default=names)
    parser.add_argument("--skip", type=some, default=[])
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--smoke", action="store_true")
    return parser.parse_args()


class Child:
    """A stage under way, with all that it starts."""

    def __init__(self, stage, options, log):
        self.stage, self.begun = stage, time.monotonic()
        words = [sys.executable, HERE / "stage.py", stage.name, "--out", options.out, "--place", options.place]
        words += ["--device", options.device, *(["--smoke"] if options.smoke else [])]
        log.write(f"\n== {stage.name}\n")
        log.flush()
        self.child = subprocess.Popen(
            [str(word) for word in words], cwd=common.ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
        )

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


class Driver:
    def __init__(self, options):
        self.options, self.failed, self.not_run = options, [], []
        self.begun = time.monotonic()
        self.deadline = self.begun + 60 * options.minutes
        self.log = open(options.out / "stages.log", "a")
        self.beside, self.where = {}, common.surroundings()

    def run(self):
        stages = [stage for stage in plan.PLAN if stage.name in self.options.only and stage.name not in self.options.skip]
        try:
            healthy = self.stage(stages[0]) if stages and stages[0].name == "doctor" else True
            if healthy:
                self.start_beside({need for stage in stages for need in stage.needs})
            for stage in [stage for stage in stages if stage.name != "doctor"]:
                if not healthy:
                    self.leave_out(stage, "not run: the doctor failed")
                elif self.left() <= (0 if self.options.smoke else stage.seconds / 2):
                    self.leave_out(stage, "not run: no time")
                else:
                    if stage.needs:
                        self.wait_beside()
                    self.stage(stage)
        finally:
            for child in self.beside.values():
                child.end()
            self.write()

    def left(self):
        return self.deadline - time.monotonic()

    def limit(self, stage, begun):
        """Seconds from now on."""
        own = stage.limit * (plan.SMOKE_PATIENCE if self.options.smoke else 1)
        return min(begun + own - time.monotonic(), self.left())

    def leave_out(self, stage, why):
        report.Report(self.options.out / "results.jsonl", stage.name).ended(why, 0)
        self.not_run.append(stage.name)
        self.say(stage.name, why)
        self.write()

    def stage(self, stage):
        """Whether the stage came to its end with all its checks holding."""
        child = Child(stage, self.options, self.log)
        self.beside["under way"] = child
        outcome = child.wait(self.limit(stage, child.begun))
        del self.beside["under way"]
        return self.ended(stage, *outcome)

    def ended(self, stage, state, seconds):
        report.Report(self.options.out / "results.jsonl", stage.name).ended(state, seconds)
        self.say(stage.name, f"{state}, {seconds:.0f} s; {self.left():.0f} s are left")
        if state != "done" and not stage.optional:
            self.failed.append(stage.name)
        self.write()
        return state == "done"

    def start_beside(self, needs):
        for stage in plan.BACKGROUND:
            if stage.name in needs or any(stage.name in other.needs and other.name in needs for other in plan.BACKGROUND):
                self.beside[stage.name] = Child(stage, self.options, open(self.options.out / f"{stage.name}.log", "w"))

    def wait_beside(self):
        """Nothing that compiles or writes may go on while something is timed."""
        for stage in plan.BACKGROUND:
            if child := self.beside.get(stage.name):
                outcome = child.wait(self.limit(stage, child.begun))
                del self.beside[stage.name]
                self.take_log(stage.name)
                self.ended(stage, *outcome)

    def take_log(self, name):
        path = self.options.out / f"{name}.log"
        self.log.write(path.read_text(errors="replace"))
        self.log.flush()
        path.unlink()

    def say(self, name, text):
        print(f"prove: {name}: {text}", file=sys.stderr, flush=True)

    def write(self):
        """The summary and the file of all numbers, replaced at once."""
        results = report.read(self.options.out / "results.jsonl")
        order = [stage.name for stage in [plan.PLAN[0], *plan.BACKGROUND, *plan.PLAN[1:]]]
        text = report.text(results, order)
        if self.options.smoke:
            text += "These sizes say only that the script works.\n"
        replace(self.options.out / "summary.txt", text)
        facts = {key: value for one in results if one["kind"] == "facts" for key, value in one.items() if key not in ("stage", "kind")}
        of = lambda kind: [{key: value for key, value in one.items() if key != "kind"} for one in results if one["kind"] == kind]
        content = {
            "part": "gpu", **self.where, "device": self.options.device, "smoke": self.options.smoke, **facts,
            "seconds": round(time.monotonic() - self.begun, 1),
            "stages": of("end"), "checks": of("check"), "rows": of("row"), "notes": of("note"),
        }  # fmt: skip
        replace(self.options.json or self.options.out / "gpu.json", json.dumps(content, indent=1) + "\n")


def replace(path, text):
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def main():
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    options.out = options.out.resolve()
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
        print(f"prove: not run: {', '.join(driver.not_run)} (--only {','.join(driver.not_run)})", file=sys.stderr)
    if driver.failed:
        sys.exit(f"prove: error: failed: {', '.join(driver.failed)}; what was said stands in {options.out}/stages.log")


main()
