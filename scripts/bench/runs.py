"""Whole training runs as processes: ours and the peers', watched from outside."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import common

BATCH = 128


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
            for line in open(f"/proc/{pid}/smaps_rollup"):
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except OSError:
            pass
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


def epochs_of(command, place, during=None, memory=True, output=None):
    """Runs a training of ours whose results go below `place`: when each epoch's line reached metrics.jsonl, the lines, and
    the peak of memory. `during(epochs)` is called again and again with the number of epochs that are done. With `memory`
    false nobody looks at it (a GPU's mappings make looking slow), and the peak is None. What the program says goes into the
    file `output`, if one is given."""
    child = subprocess.Popen(command, cwd=common.ROOT, stdout=output, stderr=subprocess.STDOUT if output else None)
    watch, arrivals, file = Watch(child.pid) if memory else None, [], None
    while child.poll() is None:
        if file is None:
            file = next(iter(Path(place).rglob("metrics.jsonl")), None)
        elif (lines := file.read_bytes().count(b"\n")) > len(arrivals):
            arrivals += [time.time()] * (lines - len(arrivals))
        if during:
            during(len(arrivals))
        time.sleep(0.004)
    peak = watch.stop() if watch else None
    if child.returncode != 0 or file is None:
        sys.exit(f"bench: error: {' '.join(command)} ended with status {child.returncode}")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return arrivals + [time.time()] * (len(rows) - len(arrivals)), rows, peak


def ours(model, precision, steps_per_epoch, epochs):
    """Runs the program for whole epochs. Times are those at which the epochs' lines reach metrics.jsonl, so that
    everything between two steps counts, and the end of an epoch too. The first epoch is not in the rate."""
    import upstream  # It imports PyTorch, which takes seconds that not all who are here have.

    _, dataset = upstream.fashion_home()
    with tempfile.TemporaryDirectory() as place:
        command = [
            common.binary(),
            f"--dataset-name={dataset}",
            f"--data={upstream.fashion_home()[0].parent}",
            f"--model={model}",
            f"--batch-size={BATCH}",
            f"--epochs={epochs}",
            f"--train-images={steps_per_epoch * BATCH}",
            "--save-every-n-epochs=1000",
            "--knn-every=0",
            f"--save-dir={place}",
            "--device=cpu",
            "--quiet",
        ]
        if precision:
            command.append(f"--precision={precision}")
        begun = time.time()
        arrivals, rows, peak = epochs_of(command, place)
    result = {"first": arrivals[0] - begun, "peak_mib": peak, "data_wait_share": rows[-1]["data_wait_share"]}
    if epochs > 1:
        result["rate"] = (epochs - 1) * steps_per_epoch * BATCH / (arrivals[-1] - arrivals[0])
    return result


def theirs(manner, model, warm, steps):
    """Runs a peer for `warm` steps that do not count and `steps` that do."""
    command = [sys.executable, str(common.HERE / "train_peer.py"), manner, model, str(warm + steps)]
    begun = time.time()
    child = subprocess.Popen(command, cwd=common.ROOT, stdout=subprocess.PIPE, text=True)
    watch = Watch(child.pid)
    times = [json.loads(line)["time"] for line in child.stdout if line.startswith("{")]
    peak = watch.stop()
    if child.wait() != 0 or len(times) != warm + steps:
        sys.exit(f"bench: error: {' '.join(command)} ended with status {child.returncode}")
    result = {"first": times[0] - begun, "peak_mib": peak}
    if steps:
        result["rate"] = steps * BATCH / (times[-1] - times[warm - 1])
    return result
