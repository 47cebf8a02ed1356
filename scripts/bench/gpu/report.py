"""What the stages of prove_gpu.sh find: lines of JSON, each written when it is known, and the text made of them."""

import json
import os
import traceback
from pathlib import Path

import common
from program import Failed


class Report:
    """A stage's part of results.jsonl."""

    def __init__(self, path, stage):
        self.path, self.stage, self.failures = Path(path), stage, 0

    def _write(self, kind, content):
        line = json.dumps({"stage": self.stage, "kind": kind, **content}) + "\n"
        # One write a line: whoever ends this process leaves whole lines.
        with open(self.path, "a") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def check(self, name, holds, **numbers):
        """Whether something is as it must be; `numbers` say how near it was, `error` why it could not be looked at."""
        self.failures += not holds
        self._write("check", {"check": name, "holds": bool(holds), **numbers})

    def row(self, *arguments, **named):
        """A line of the table, of common.row's arguments."""
        self._write("row", common.row(*arguments, **named))

    def note(self, text):
        self._write("note", {"text": text})

    def left_out(self, what, why):
        """A part that this machine or program cannot do, which is no failure."""
        self.note(f"left out: {what}: {why}")

    def ended(self, state, seconds):
        self._write("end", {"state": state, "seconds": round(seconds, 1)})

    def facts(self, **facts):
        self._write("facts", facts)

    def attempt(self, name, work):
        """Runs `work`, which writes results itself; one that fails is a failed check, and the next can follow."""
        try:
            return work()
        except (Failed, SystemExit) as error:
            self.check(name, False, error=str(error))
        except Exception as error:
            traceback.print_exc()
            self.check(name, False, error=f"{type(error).__name__}: {error}")
        return None


def read(path):
    """Every whole line so far."""
    lines = Path(path).read_text().splitlines() if Path(path).exists() else []
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def details(check):
    """The numbers of a check in words."""
    numbers = {key: value for key, value in check.items() if key not in ("stage", "kind", "check", "holds")}
    said = [f"{key} {value:.6g}" if isinstance(value, float) else f"{key} {value}" for key, value in numbers.items()]
    return ": " + ", ".join(said) if said else ""


def text(results, stages):
    """The summary: what each of `stages` found, in their order."""
    lines = []
    of = lambda found, kind: [one for one in found if one["kind"] == kind]
    for stage in stages:
        own = [result for result in results if result["stage"] == stage]
        if not own:
            continue
        ends = [f"{end['state']} ({end['seconds']:g} s)" for end in of(own, "end")]
        lines += ["", f"== {stage}: {ends[0] if ends else 'under way when this was written'}"]
        for one in own:
            if one["kind"] == "check":
                lines.append(f"{'holds ' if one['holds'] else 'FAILED'}  {one['check']}{details(one)}")
            elif one["kind"] == "note":
                lines.append(one["text"])
        if rows := of(own, "row"):
            lines += ["", common.table(rows)]
    count = lambda kind, key, value: sum(one[key] is value for one in of(results, kind))
    checks = f"{count('check', 'holds', True)} checks hold, {count('check', 'holds', False)} failed"
    targets = f"{count('row', 'met', True)} targets met, {count('row', 'met', False)} missed"
    return "\n".join([*lines[1:], "", f"{checks}; {targets}"]) + "\n"
