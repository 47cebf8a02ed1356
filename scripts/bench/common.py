"""What the measurements share: pairs in turns, child processes, rows with targets, the table, the machine."""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CORES = len(os.sched_getaffinity(0))


def arguments(description, more=None):
    """--quick and --json, which every measurement takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds: seconds to a minute or two, rough numbers")
    parser.add_argument("--json", metavar="FILE", help="write the rows, the machine and the versions to FILE")
    if more:
        more(parser)
    return parser.parse_args()


def say(text):
    """Progress: on standard error, so that standard output is the table."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


# ---- our side -------------------------------------------------------------------------------------------------------


def target_directory():
    found = os.environ.get("CARGO_TARGET_DIR")
    if not found:
        command = ["cargo", "metadata", "--no-deps", "--format-version=1"]
        found = json.loads(subprocess.check_output(command, cwd=ROOT))["target_directory"]
    return ROOT / found


def binary():
    if given := os.environ.get("FLATNCE_BINARY"):
        return given
    path = target_directory() / "release" / "flatnce"
    if not path.exists():
        sys.exit(f"bench: error: {path} is not there; run scripts/bench.sh, or cargo build --release")
    return str(path)


_executables = {}


def bench_executable(name):
    """The program that `cargo bench --bench NAME` runs, built if need be."""
    if name not in _executables:
        command = ["cargo", "bench", "--no-run", "--quiet", "--bench", name, "--message-format=json"]
        lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
        messages = [json.loads(line) for line in lines if line.startswith("{")]
        built = [m for m in messages if m.get("executable") and m["target"]["name"] == name]
        _executables[name] = built[-1]["executable"]
    return _executables[name]


class Server:
    """A child that does one piece of work for each line it is sent, and answers with a line of JSON."""

    def __init__(self, command, **environment):
        self.child = subprocess.Popen(
            [str(word) for word in command],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.ready = self._answer()

    def _answer(self):
        while line := self.child.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        sys.exit(f"bench: error: {self.child.args[0]} ended with status {self.child.wait()}; its message stands above")

    def ask(self):
        self.child.stdin.write("go\n")
        self.child.stdin.flush()
        return self._answer()

    def close(self):
        self.child.stdin.close()
        self.child.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def measure(*words, **environment):
    """benches/measure as a server."""
    return Server([bench_executable("measure"), *words], **environment)


def peer(script, *words, **environment):
    """A Python peer as a server."""
    return Server([sys.executable, HERE / script, *words], **environment)


def peer_serve(work, ready=None):
    """The peer's end of `Server`: `work()` gives a dictionary; the time it took is added unless it has one."""

    def status(name):
        for line in open("/proc/self/status"):
            if line.startswith(name + ":"):
                return int(line.split()[1]) / 1024

    out = sys.stdout
    sys.stdout = sys.stderr
    print(json.dumps({"ready": True, "memory_mib": status("VmRSS"), **(ready or {})}), file=out, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        answer = work()
        answer.setdefault("seconds", time.perf_counter() - start)
        answer["peak_mib"] = status("VmHWM")
        print(json.dumps(answer), file=out, flush=True)


def in_turns(rounds, *works):
    """Runs the works one after the other, `rounds` times over: one list of results a work."""
    results = [[] for _ in works]
    for _ in range(rounds):
        for kept, work in zip(results, works):
            kept.append(work())
    return results


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
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 4
    return f"{value:,.{digits}f}"


def table(rows):
    """The rows in Markdown."""
    lines = ["| work | against | flatnce | peer | ratio (spread) | target | |", "|---|---|---|---|---|---|---|"]
    for r in rows:
        spread = f"{r['ratio']:.3g} ({r['ratio_lowest']:.3g} to {r['ratio_highest']:.3g})"
        verdict = {True: "met", False: "MISSED", None: ""}[r["met"]]
        theirs = "" if r["theirs_median"] is None else f"{number(r['theirs_median'])} {r['unit']}"
        ours = f"{number(r['ours_median'])} {r['unit']}"
        if r["theirs_median"] is None:
            spread = f"({number(r['ratio_lowest'])} to {number(r['ratio_highest'])})"
        lines.append(
            f"| {r['work']} | {r['against'] or ''} | {ours} | {theirs} | {spread} | {r['target'] or ''} | {verdict} |"
        )
    notes = dict.fromkeys(r["note"] for r in rows if r["note"])
    return "\n".join(lines + [""] * bool(notes) + [f"- {note}" for note in notes])


def finish(part, rows, options):
    """Prints the rows and writes them."""
    print(table(rows), flush=True)
    if options.json:
        content = {"part": part, "quick": options.quick, **surroundings(), "rows": rows}
        temporary = Path(options.json + ".tmp")
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        temporary.replace(options.json)


# ---- where it was measured ------------------------------------------------------------------------------------------


def surroundings():
    """Machine, versions, commit and date."""
    import importlib.metadata

    facts = {}
    for line in open("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    flags = facts.get("flags", "").split()
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal"))

    def told(*command):
        try:
            return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
        except OSError:
            return None  # A machine that only measures has no compiler.

    def version(name):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    return {
        "machine": {
            "cpu": facts.get("model name"),
            "family_model": f"{facts.get('cpu family')}/{facts.get('model')}",
            "cores": CORES,
            "avx512f": "avx512f" in flags,
            "avx512_bf16": "avx512_bf16" in flags,
            "amx_bf16": "amx_bf16" in flags,
            "memory_gib": round(memory / 2**20, 1),
            "kernel": platform.release(),
            "load_1min": round(os.getloadavg()[0], 2),
        },
        "versions": {
            "flatnce": told(binary(), "--version"),
            "rustc": told("rustc", "--version"),
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "torchvision", "numpy", "pillow")},
        },
        "commit": told("git", "describe", "--always", "--dirty", "--abbrev=12"),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
    }
