"""Both sides of a row: whole trainings of ours, read off their own files, and the peers of peer.py."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import data
import runner
from report import Failed

import common
import runs

WHOLE = "steps alone, as the peers are timed; the whole epoch, its end included, is a row of its own"


class Busy:
    """Utilisation of the GPU in percent as nvidia-smi tells it, four times a second, while `counts` is set."""

    def __init__(self, device):
        self.samples, self.counts, self.problem = [], False, None
        index = device.partition(":")[2] or "0"
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "250", "-i", index]
        if shutil.which("stdbuf"):
            # A program may keep what it writes into a pipe until there is much of it.
            command = ["stdbuf", "-oL", *command]
        try:
            self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        except OSError as error:
            self.child, self.problem = None, f"nvidia-smi: {error.strerror}"
            return
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.child.stdout:
            if not line.strip().isdigit():
                self.problem = f"nvidia-smi said {line.strip()!r}"
            elif self.counts:
                self.samples.append(float(line))

    def stop(self):
        """The samples."""
        if self.child:
            self.child.terminate()
            self.child.wait()
            self.reader.join()
        return self.samples


class Ours:
    """A training of some epochs; the first is not counted: cuDNN tries its algorithms in it, and graphs are captured."""

    def __init__(self, options, words, epochs, images, busy=None):
        with tempfile.TemporaryDirectory(dir=options.place) as place:
            command = [
                common.binary(), *words, f"--epochs={epochs}", f"--train-images={images}", "--save-every-n-epochs=1000",
                "--knn-every=0", f"--save-dir={place}",
            ]  # fmt: skip
            print(f"$ {' '.join(command)}", flush=True)

            def during(done):
                if busy:
                    busy.counts = 1 <= done < epochs

            said = Path(place) / "said"
            try:
                with open(said, "w") as output:
                    arrivals, rows, _ = runs.epochs_of(command, place, during, memory=options.device == "cpu", output=output)
            except SystemExit as error:
                raise Failed(f"{error}: {said.read_text()[-runner.LAST_WORDS:].strip()}") from error
            finally:
                print(said.read_text(), flush=True)
            self.words = said.read_text().splitlines()
        batch = next(int(word.partition("=")[2]) for word in words if word.startswith("--batch-size="))
        self.rates = [row["images_per_second"] for row in rows[1:]]
        self.whole = [images // batch * batch / (b - a) for a, b in zip(arrivals, arrivals[1:])]
        self.peak_mib = rows[-1]["memory_peak_mib"]
        # How the step was taken, which on a CPU is not said.
        self.step = next((line.strip() for line in reversed(self.words) if "step: " in line), None)
        self.waited = 100 * statistics.median(row["data_wait_share"] for row in rows[1:])


def small(options, batch, *words, epochs=4, busy=None):
    """Of res18 at 32 pixels: whole epochs of CIFAR's size at a large batch, of 12,800 images at a small one."""
    size = data.Sizes(options)
    images = size.images if batch == size.batch else size.small_images
    return Ours(options, [*data.cifar_words(options, batch), "--engine=tensor", *words], 3 if options.smoke else epochs, images, busy)


def peers(options, plan, model, file, batch, size, *words):
    """What peer.py says of each manner; `plan` has its counts of (warm, steps, blocks)."""
    counts = {manner: (1, 2, 2) if options.smoke else wanted for manner, wanted in plan.items()}
    command = [sys.executable, common.HERE / "gpu/peer.py", *(":".join(map(str, [m, *c])) for m, c in counts.items())]
    command += [f"--model={model}", f"--images={data.home(options) / file}", f"--size={size}", f"--batch={batch}", f"--device={options.device}"]
    command += [*words, *(["--backend=eager"] if options.smoke else [])]
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(options.place / "inductor"), "TORCH_LOGS": "perf_hints"}
    command = [str(word) for word in command]
    print(f"$ {' '.join(command)}", flush=True)
    told = {}
    with subprocess.Popen(command, cwd=common.ROOT, stdout=subprocess.PIPE, text=True, env=environment) as child:
        for line in child.stdout:
            print(line[:2000], end="", flush=True)
            if line.startswith("{"):
                one = json.loads(line)
                told[one["manner"]] = one
                yield one["manner"], one
    for manner in counts:
        if manner not in told:
            yield manner, {"manner": manner, "error": f"the process ended with status {child.returncode}; its words stand in stages.log"}


def against(options, found, work, mine, plan, names, targets, *peer):
    """A row for each peer of `plan`, when it is known; those that failed are rows of ours alone. What the peers told."""
    told = {}
    for manner, one in peers(options, plan, *peer):
        told[manner] = one
        target = None if options.smoke else targets.get(manner)
        if "error" in one:
            found.note(f"no number of {names[manner]}: {one['error']}")
            found.row(work, f"{names[manner]}: failed", "images/s", mine.rates, None)
            continue
        if one.get("graph_skips") and options.device != "cpu":
            found.note(f"{names[manner]}: {one['graph_skips']} parts were not recorded as CUDA graphs; stages.log says why")
        count = min(len(mine.rates), len(one["rates"]))
        found.row(work, names[manner], "images/s", mine.rates[-count:], one["rates"][-count:], target)
    return told


NAMES = {
    "eager": "PyTorch eager, channels-last bf16",
    "compiled": "torch.compile, its optimiser step and views too",
    "overhead": "torch.compile, mode reduce-overhead",
    "upstream": "main.py's recipe",
    "faster": "main.py's faster version",
}
