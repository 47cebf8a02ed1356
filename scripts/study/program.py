"""The program and its files, as the study uses them."""

import datetime
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def say(text):
    print(f"reproduce: {text}", file=sys.stderr, flush=True)


def binary():
    target = os.environ.get("CARGO_TARGET_DIR")
    if not target:
        command = ["cargo", "metadata", "--no-deps", "--format-version=1"]
        target = json.loads(subprocess.check_output(command, cwd=ROOT))["target_directory"]
    return str(ROOT / target / "release" / "flatnce")


def dataset(data, images):
    """Fashion-MNIST where it is installed, else the sample inside the program."""
    # Where scripts/get_data.sh puts it, and where Debian's package does.
    places = [data / "fashion_mnist", data / "fashion-mnist", Path("/usr/share/datasets/fashion-mnist")]
    for place in places:
        if any(place.glob("train-images-idx3-ubyte*")):
            return ["--dataset-name=fashion_mnist", f"--data={place.parent}"]
    if images > 4_000:
        sys.exit("reproduce: error: Fashion-MNIST is not installed; ./scripts/get_data.sh fashion_mnist gets it")
    say("Fashion-MNIST is not installed: the 4,000 + 1,000 images inside the program are used")
    return ["--dataset-name=fashion_mnist_mini"]


def call(*words):
    """Runs the program; its seconds, and the highest memory of it in MiB."""
    command = [binary(), *map(str, words)]
    begun = time.perf_counter()
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"reproduce: error: {' '.join(command)}\n{said}")
    return time.perf_counter() - begun, usage.ru_maxrss / 1024


def trained(place, words, epochs):
    """The directory of a finished training below `place`: kept, resumed, or made now. And its seconds and memory."""
    done = place / "done.json"
    if not done.exists():
        found = sorted(place.glob("*/*/*/config.yml"))
        if found and list(found[-1].parent.glob("checkpoint_*.pth.tar")):
            directory = found[-1].parent
            say(f"going on with {directory}")
            seconds, memory = call(f"--resume={directory}", "--quiet")
        else:
            seconds, memory = call(*words, f"--epochs={epochs}", f"--save-dir={place}", "--quiet")
            directory = sorted(place.glob("*/*/*/config.yml"))[-1].parent
        content = {"directory": str(directory), "seconds": seconds, "memory_mib": memory}
        done.write_text(json.dumps(content))
    content = json.loads(done.read_text())
    return Path(content["directory"]), content


def rows(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def surroundings():
    """What a number is worth nothing without."""
    told = lambda *command: subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    cpu = [line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "command": "./scripts/reproduce.sh " + " ".join(sys.argv[1:]),
        "commit": told("git", "describe", "--always", "--dirty", "--abbrev=12"),
        "program": told(binary(), "--version"),
        "cpu": cpu[0] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": importlib.metadata.version("torch"),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def write_json(path, content):
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)
