"""Both sides of a row: whole trainings of ours, read off their own files, and the peers of peer.py."""

import shutil
import statistics
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import program
import report
from data import Sizes, cifar, home
from program import Failed

NAMES = {
    "eager": "PyTorch eager, channels-last bf16",
    "compiled": "torch.compile, its optimiser step and views too",
    "overhead": "torch.compile, mode reduce-overhead",
    "upstream": "main.py's recipe",
    "faster": "main.py's faster version",
}


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


class Ours(program.Timed):
    """A training of some epochs; the first is not counted: cuDNN tries its algorithms in it, and graphs are captured."""

    def __init__(self, options, epochs, images, busy=None, **flags):
        def during(done):
            if busy:
                busy.counts = 1 <= done < epochs

        super().__init__(options.place, during, options.device == "cpu", **flags, epochs=epochs, train_images=images)
        batch = flags["batch_size"]
        self.rates = [row["images_per_second"] for row in self.rows[1:]]
        self.whole = [images // batch * batch / (b - a) for a, b in zip(self.arrivals, self.arrivals[1:])]
        self.peak_mib = self.rows[-1]["memory_peak_mib"]
        # How the step was taken, which on a CPU is not said.
        self.step = next((line.strip() for line in reversed(self.words) if "step: " in line), None)
        self.waited = 100 * statistics.median(row["data_wait_share"] for row in self.rows[1:])


class Known:
    """A row of ours that a stage before has measured."""

    def __init__(self, rates):
        self.rates = rates

    @staticmethod
    def of(options, work):
        """None where there is no such row."""
        rows = [one for one in report.read(options.out / "results.jsonl") if one["kind"] == "row" and one["work"] == work]
        return Known(rows[0]["ours"]) if rows else None


def small(options, batch, epochs=4, busy=None, **flags):
    """Of res18 at 32 pixels: whole epochs of CIFAR's size at a large batch, of 12,800 images at a small one."""
    size = Sizes(options)
    images = size.images if batch == size.batch else size.small_images
    return Ours(options, 3 if options.smoke else epochs, images, busy, **cifar(options, batch), **flags)


def peers(options, plan, model, file, batch, size, *words):
    """What peer.py says of each manner; `plan` has its counts of (warm, steps, blocks)."""
    counts = {manner: (1, 2, 2) if options.smoke else wanted for manner, wanted in plan.items()}
    words = [*words, "--backend=eager"] if options.smoke else words
    environment = {"TORCHINDUCTOR_CACHE_DIR": str(options.place / "inductor"), "TORCH_LOGS": "perf_hints"}
    flags = {"model": model, "images": home(options) / file, "size": size, "batch": batch, "device": options.device}
    return program.peers(counts, *words, environment=environment, **flags)


def against(options, found, work, mine, plan, targets, *peer):
    """A row for each peer of `plan`, when it is known; those that failed are rows of ours alone. What the peers told."""
    told = {}
    for one in peers(options, plan, *peer):
        manner = one["manner"]
        told[manner], target = one, None if options.smoke else targets.get(manner)
        if "error" in one:
            found.note(f"no number of {NAMES[manner]}: {one['error']}")
            found.row(work, f"{NAMES[manner]}: failed", "images/s", mine.rates, None)
            continue
        if one.get("graph_skips") and options.device != "cpu":
            found.note(f"{NAMES[manner]}: {one['graph_skips']} parts were not recorded as CUDA graphs; stages.log says why")
        count = min(len(mine.rates), len(one["rates"]))
        found.row(work, NAMES[manner], "images/s", mine.rates[-count:], one["rates"][-count:], target)
    return told


# ---- filling torch.compile's cache beforehand -----------------------------------------------------------------------

# Graphs are recorded in the second run and replayed in the third.
WARM_STEPS, WAIT_SECONDS = (3, 1, 1), 60


def large_peer(size):
    """Words of `peers` for res50 at 224 pixels."""
    return size.large, "stl.npy", size.large_batch, size.large_side, "--strength=1", "--blur"


def warm(options, found):
    """All shapes beside each other: compiling is the CPU's work, and would take the table minutes."""
    size, done = Sizes(options), options.place / "inductor" / "all_compiled"
    if done.exists():
        found.note("an earlier call has compiled them")
        return
    # Each in a process of its own: what takes longest is one thread that traces and generates code.
    shapes = [
        ("compiled", *large_peer(size)),
        ("compiled", size.small, "cifar.npy", size.batch, 32),
        ("overhead", size.small, "cifar.npy", size.batch, 32),
        ("overhead", size.small, "cifar.npy", size.small_batch, 32),
    ]
    # Nothing is kept of what the smoke test compiles: one shows that it works.
    shapes = shapes[-1:] if options.smoke else shapes
    with ThreadPoolExecutor(len(shapes)) as pool:
        told = [one for shape in pool.map(lambda shape: compiled(options, *shape), shapes) for one in shape]
    for one in told:
        if "error" in one:
            found.note(f"not compiled beforehand: {one['manner']}: {one['error']}")
    seconds = [one["warm_seconds"] for one in told if "warm_seconds" in one]
    if len(seconds) == len(told) and not options.smoke:
        done.touch()
    found.note(f"{len(seconds)} of {len(told)} peers are compiled, the slowest in {max(seconds, default=0):.0f} s")


def compiled(options, manner, model, file, *shape):
    until = time.monotonic() + WAIT_SECONDS
    while not (home(options) / file).exists():
        if time.monotonic() > until:
            raise Failed(f"{file} has not been made within {WAIT_SECONDS} s")
        time.sleep(0.1)
    return list(peers(options, {manner: WARM_STEPS}, model, file, *shape))
