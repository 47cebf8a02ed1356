"""What all measurements share: failures, pairs in turns, rows with targets, the table, the file of all numbers, the machine."""

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import program


def say(text):
    """Progress: on standard error, so that standard output is the table."""
    # One call: works beside each other would share a line.
    sys.stderr.write(f"{program.script}: {text}\n")
    sys.stderr.flush()


def run_as(script, work):
    """Runs `work`; what it says begins with the script's name, and `Failed` ends it with a sentence."""
    program.script = script
    try:
        work()
    except program.Failed as error:
        sys.exit(f"{script}: error: {error}")


def set_up(*builds):
    """Makes the Python environment and builds, then goes on in that environment's interpreter."""
    if "FLATNCE_SET_UP" in os.environ:
        return
    for command in (["./scripts/setup.sh", "--python"], *(["cargo", *build, "--quiet"] for build in builds)):
        if subprocess.run(command, cwd=program.ROOT, stdout=sys.stderr).returncode != 0:
            raise program.Failed(f"{' '.join(command)} failed; its message stands above")
    os.environ["FLATNCE_SET_UP"] = "done"
    python = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flatnce/python/bin/python")
    os.execv(python, [python, *sys.argv])


# ---- pairs that take turns ------------------------------------------------------------------------------------------


class Server:
    """A child that does one piece of work for each line it is sent, and answers with a line of JSON."""

    def __init__(self, command, **environment):
        self.child = subprocess.Popen(
            [str(word) for word in command], cwd=program.ROOT, env={**os.environ, **environment}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.ready = self._answer()

    def _answer(self):
        while line := self.child.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        raise program.Failed(f"{self.child.args[0]} ended with status {self.child.wait()}; its message stands above")

    def ask(self):
        self.child.stdin.write("go\n")
        self.child.stdin.flush()
        return self._answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stdin.close()
        self.child.wait()


def measure(*words, **environment):
    """benches/measure as a server."""
    return Server([program.bench_executable("measure"), *words], **environment)


def peer(*words, **environment):
    """peer.py as a server."""
    return Server([sys.executable, program.PEER, *words], **environment)


def in_turns(rounds, *works):
    """Runs the works one after the other, `rounds` times over: one list of results a work."""
    results = [[] for _ in works]
    for _ in range(rounds):
        for kept, work in zip(results, works):
            kept.append(work())
    return results


def column(answers, name, scale=1):
    return [scale * answer[name] for answer in answers]


# ---- rows -----------------------------------------------------------------------------------------------------------


def row(work, against, unit, ours, theirs, target=None, better="more", note=None):
    """One line of the table. `ours` and `theirs` are equally long lists, measured in turns.

    `target` is (">=", 3.2) or ("<=", 0.6), of the ratio. With better="more" the numbers are rates and the ratio is
    ours / theirs; with "less" they are times, and it is theirs / ours; with "share" ours / theirs of what should be
    small. `theirs` None: ours alone, a target of its own value.
    """
    if theirs is None:
        ratios = list(ours)
    elif better == "less":
        ratios = [b / a for a, b in zip(ours, theirs)]
    else:
        ratios = [a / b for a, b in zip(ours, theirs)]
    ratio = statistics.median(ratios)
    met = None
    if target:
        met = ratio >= target[1] if target[0] == ">=" else ratio <= target[1]
    return {
        "work": work,
        "against": against,
        "unit": unit,
        "ours": list(ours),
        "theirs": None if theirs is None else list(theirs),
        "ours_median": statistics.median(ours),
        "theirs_median": None if theirs is None else statistics.median(theirs),
        "ratio": ratio,
        "ratio_lowest": min(ratios),
        "ratio_highest": max(ratios),
        "target": f"{target[0]} {target[1]:g}" if target else None,
        "met": met,
        "note": note,
    }


def number(value):
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 4
    return f"{value:,.{digits}f}"


def markdown(head, lines):
    """A table in Markdown; cells that are None stay empty."""
    line = lambda cells: "| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |"
    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, lines)])


def table(rows):
    """The rows in Markdown, and under them their notes."""
    lines = []
    for r in rows:
        theirs, spread = None, f"({number(r['ratio_lowest'])} to {number(r['ratio_highest'])})"
        if r["theirs_median"] is not None:
            theirs = f"{number(r['theirs_median'])} {r['unit']}"
            spread = f"{r['ratio']:.3g} ({r['ratio_lowest']:.3g} to {r['ratio_highest']:.3g})"
        ours, verdict = f"{number(r['ours_median'])} {r['unit']}", {True: "met", False: "MISSED", None: ""}[r["met"]]
        lines.append([r["work"], r["against"], ours, theirs, spread, r["target"], verdict])
    notes = dict.fromkeys(r["note"] for r in rows if r["note"])
    text = markdown(["work", "against", "flatnce", "peer", "ratio (spread)", "target", ""], lines)
    return "\n".join([text, *([""] * bool(notes)), *(f"- {note}" for note in notes)])


def replace(path, text):
    """Writes a file that is whole whenever somebody looks."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def write_json(path, content):
    replace(path, json.dumps(content, indent=1) + "\n")


# ---- where it was measured ------------------------------------------------------------------------------------------


def told(*command):
    try:
        return subprocess.run(command, cwd=program.ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        return None  # A machine that only measures has no compiler.


def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def surroundings():
    """Machine, versions, commit and date."""
    facts = {}
    for line in open("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    flags = facts.get("flags", "").split()
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "machine": {
            "cpu": facts.get("model name"),
            "family_model": f"{facts.get('cpu family')}/{facts.get('model')}",
            "cores": program.CORES,
            **{name: name in flags for name in ("avx512f", "avx512_bf16", "amx_bf16")},
            "memory_gib": round(memory / 2**20, 1),
            "kernel": platform.release(),
            "load_1min": round(os.getloadavg()[0], 2),
        },
        "versions": {
            "flatnce": told(program.binary(), "--version"),
            "rustc": told("rustc", "--version"),
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "torchvision", "numpy", "pillow")},
        },
        "commit": told("git", "describe", "--always", "--dirty", "--abbrev=12"),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
    }
