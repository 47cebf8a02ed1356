"""What bench.sh measures of evaluation: part eval."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import program
from common import column, row, say
from program import Failed

EPOCHS = 100
# Our feature runs need some training images; so few cost nothing.
FEW = 64
TARGETS = {"linear": 30, "features": 0.97}
SCALED = (
    f"linear evaluation: PyTorch's time is {EPOCHS} times one measured epoch a round, on images in memory; start, kNN and "
    "files are counted for flatnce only"
)
# The same features give the same neighbours, but for ties and rounding.
KNN_TOLERANCE = {"fp32": 0.5, "bf16": 2.0}


def evaluation(options):
    """Evaluation on the CPU, flatnce against PyTorch: a linear evaluation of a res10, and features of test images.

    Linear evaluation: the whole run of our binary (start, images, features, kNN, 100 epochs, a test after each, files)
    against PyTorch doing it as upstream does, with the trunk's forward pass in every epoch over the training and the test
    images. PyTorch's images lie decoded in memory, its start, kNN and files are not counted, and its BatchNorm is in eval
    mode. Each round measures one of its epochs after a warm-up, and 100 times that is the figure.

    Features: images per second of the test images through the trunk, from the first batch on, in both cases without the
    start of the program. PyTorch runs channels-last in eval mode; ours is `seconds_features` of linear_eval.json, which
    holds the loading of the images too.

    Ours and PyTorch's runs alternate, each in a process of its own; figures are medians of the rounds. `OMP_NUM_THREADS`
    rules both. Full: Fashion-MNIST where it is installed (Debian's package, or ./scripts/get_data.sh fashion_mnist), about
    15 minutes on 2 cores; --quick, or where it is not: the 4,000 + 1,000 embedded images.
    """
    if options.rounds is not None and options.rounds < 1:
        raise Failed("--rounds must be at least 1")
    if options.binary:
        os.environ["FLATNCE_BINARY"] = options.binary
    tasks = [options.only] if options.only else list(TARGETS)
    precisions = (options.precision or default_precisions(options.quick)).split(",")
    if unknown := set(precisions) - {"fp32", "bf16"}:
        raise Failed(f"--precision {', '.join(sorted(unknown))} is unknown; give fp32, bf16 or fp32,bf16")
    if not options.precision and "bf16" not in precisions:
        say("this CPU has no bfloat16 arithmetic: fp32 only")
    wanted = lambda task: options.rounds or (1 if options.quick or task == "linear" else 3)
    rounds = {(task, precision): [] for precision in precisions for task in tasks}
    with tempfile.TemporaryDirectory() as place:
        pair = Pair(options, Path(place))
        for number in range(max(map(wanted, tasks))):
            for (task, precision), kept in rounds.items():
                if number < wanted(task):
                    kept.append(getattr(pair, task)(precision))
                    say(f"round {number + 1}/{wanted(task)}: {task} {precision}")
    return [row_of(task, precision, measured) for (task, precision), measured in rounds.items()]


def default_precisions(quick):
    """Both where the CPU multiplies bfloat16 itself; elsewhere it is emulated, and nobody would use it."""
    with contextlib.suppress(OSError):
        if any(word in Path("/proc/cpuinfo").read_text() for word in ("avx512_bf16", "amx_bf16")):
            return "bf16" if quick else "fp32,bf16"
    return "fp32"


class Pair:
    """Both sides, on one untrained encoder."""

    def __init__(self, options, place):
        import pytorch

        self.place, self.runs = place, 0
        self.images, flags = pytorch.fashion()
        if options.data:
            self.images = Path(options.data).resolve() / "fashion_mnist"
            flags = {"dataset_name": "fashion_mnist", "data": self.images.parent}
            if not any(self.images.glob("train-images-idx3-ubyte*")):
                raise Failed(f"{self.images} has no images; ./scripts/get_data.sh fashion_mnist gets them")
        elif options.quick:
            # The binary holds the embedded images; these are the files that it holds.
            self.images, flags = program.ROOT / "datasets/fashion_mnist_mini", {"dataset_name": "fashion_mnist_mini"}
        self.flags = {**flags, "device": "cpu"}
        made = program.train(place / "encoder", **self.flags, model="res10", epochs=0, precision="fp32", batch_size=256)
        self.checkpoint = made.checkpoint(0)

    def ours(self, **flags):
        """linear_eval.json, and the seconds of the whole run."""
        self.runs += 1
        begun, transfer = time.perf_counter(), {"transfer_mode": "linear_eval", "checkpoint": self.checkpoint}
        result = program.evaluated(self.place / f"run_{self.runs}", **transfer, **self.flags, feature_cache="off", **flags)
        return result, time.perf_counter() - begun

    def theirs(self, what, precision):
        command = [sys.executable, program.PEER, what, self.checkpoint, self.images, precision]
        done = subprocess.run([str(word) for word in command], cwd=program.ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            raise program.failed(command, done.returncode, done.stdout + done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def linear(self, precision):
        ours, seconds = self.ours(precision=precision, fc_epochs=EPOCHS)
        theirs = self.theirs("linear", precision)
        if theirs["images"] != [ours["train_images"], ours["test_images"]] or ours["epochs_trained"] != EPOCHS:
            raise Failed(f"the two did not do the same: {theirs['images']} images against {ours}")
        if abs(theirs["knn"] - ours["knn_plain_top1"]) > KNN_TOLERANCE[precision]:
            raise Failed(f"the features differ: 20 neighbours find {ours['knn_plain_top1']}%, PyTorch's {theirs['knn']}%")
        return {"ours": seconds, "theirs": EPOCHS * theirs["epoch_s"]}

    def features(self, precision):
        ours, _ = self.ours(precision=precision, fc_epochs=1, train_images=FEW)
        rate = (ours["test_images"] + FEW) / ours["seconds_features"]
        return {"ours": rate, "theirs": self.theirs("features", precision)["images_per_s"]}


def row_of(task, precision, measured):
    work, against, unit, better, note = {
        "linear": (f"linear evaluation of a res10, {EPOCHS} epochs, {precision}", "trunk in every epoch, PyTorch", "s", "less", SCALED),
        "features": (f"features of the test images, res10, {precision}", "PyTorch, channels-last", "images/s", "more", None),
    }[task]
    return row(work, against, unit, column(measured, "ours"), column(measured, "theirs"), (">=", TARGETS[task]), better, note)
