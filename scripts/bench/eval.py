"""Evaluation on the CPU, flatnce against PyTorch: a linear evaluation of a res10, and features of test images.

    scripts/bench.sh eval [--quick] [--json FILE] [--only linear|features] [--rounds N] [--precision fp32,bf16]

Linear evaluation: the whole run of our binary (start, images, features, kNN, 100 epochs, a test after each, files)
against PyTorch doing it as upstream does, with the trunk's forward pass in every epoch over the training and the test
images. PyTorch's images lie decoded in memory, its start, kNN and files are not counted, and its BatchNorm is in eval
mode. Each round measures one of its epochs after a warm-up, and 100 times that is the figure.

Features: images per second of the test images through the trunk, from the first batch on, in both cases without the
start of the program. PyTorch runs channels-last in eval mode; ours is `seconds_features` of linear_eval.json, which
holds the loading of the images too.

Ours and PyTorch's runs alternate, each in a process of its own; figures are medians of the rounds. `OMP_NUM_THREADS`
rules both. Full: Fashion-MNIST where it is installed (Debian's package, or ./scripts/get_data.sh fashion_mnist), about 15
minutes on 2 cores; --quick, or where it is not: the 4,000 + 1,000 embedded images.
"""

import argparse
import contextlib
import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torchvision

import common
import upstream

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 100
# Images in one pass through the trunk (src/train/features.rs), and in one step of the classifier (--fc-batch-size).
TRUNK_BATCH, FC_BATCH = 256, 4096
# Our feature runs need some training images; so few cost nothing.
FEW = 64
TARGETS = {"linear": 30, "features": 0.97}
SCALED = (
    f"linear evaluation: PyTorch's time is {EPOCHS} times one measured epoch a round, on images in memory; start, kNN and "
    "files are counted for flatnce only"
)
# The same features give the same neighbours, but for ties and rounding.
KNN_TOLERANCE = {"fp32": 0.5, "bf16": 2.0}


def fail(text):
    sys.exit(f"eval: error: {text}")


# PyTorch's side, in a process of its own.


def idx(directory, name):
    plain = directory / name
    return plain.read_bytes() if plain.exists() else gzip.decompress((directory / f"{name}.gz").read_bytes())


def images_of(directory, prefix):
    """uint8 [N, 32, 32, 3], padded as src/data/fashion_mnist.rs pads them, and labels [N]."""
    labels = np.frombuffer(idx(directory, f"{prefix}-labels-idx1-ubyte"), np.uint8, offset=8)
    grey = np.frombuffer(idx(directory, f"{prefix}-images-idx3-ubyte"), np.uint8, offset=16).reshape(-1, 28, 28)
    grey = np.pad(grey, ((0, 0), (2, 2), (2, 2)))
    images = np.ascontiguousarray(np.repeat(grey[..., None], 3, axis=3))
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


class Trunk(torchvision.models.ResNet):
    """res10 with the stem for small images and the normalisation inside."""

    def __init__(self, state):
        super().__init__(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
        self.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.maxpool, self.fc = torch.nn.Identity(), torch.nn.Identity()
        mean, std = (state.pop(f"normalize.{name}").view(1, 3, 1, 1) for name in ("mean", "std"))
        self.load_state_dict({name: value for name, value in state.items() if not name.startswith("fc.")})
        self.shift, self.scale = mean, std
        self.eval().to(memory_format=torch.channels_last)

    def features(self, images, precision):
        """uint8 [N, 32, 32, 3] to float32 [N, 512]."""
        mixed = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
        parts = []
        with torch.no_grad(), mixed:
            for batch in images.split(TRUNK_BATCH):
                batch = batch.permute(0, 3, 1, 2).float().div_(255)
                parts.append(self((batch - self.shift) / self.scale).float())
        return torch.cat(parts)


def linear_epoch(trunk, train, test, precision):
    """One epoch as upstream's: the trunk on every batch, one step of the classifier, then the test images."""
    head = torch.nn.Linear(512, 10)
    optimizer = torch.optim.SGD(head.parameters(), lr=1.6, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * -(-len(train[0]) // FC_BATCH))
    correct, seen = 0, []
    for rows in torch.randperm(len(train[0])).split(FC_BATCH):
        features, labels = trunk.features(train[0][rows], precision), train[1][rows]
        logits = head(features)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        correct += (logits.argmax(1) == labels).sum().item()
        seen.append((features, labels))
    tested = []
    for images, labels in zip(test[0].split(FC_BATCH), test[1].split(FC_BATCH)):
        features = trunk.features(images, precision)
        with torch.no_grad():
            correct += (head(features).argmax(1) == labels).sum().item()
        tested.append(features)
    join = lambda parts: tuple(torch.cat(part) for part in zip(*parts))
    return join(seen), (torch.cat(tested), test[1])


def nearest_neighbours(train, test):
    """Percent, 20 cosine neighbours with one vote each."""
    bank, correct = torch.nn.functional.normalize(train[0]), 0
    for features, labels in zip(test[0].split(500), test[1].split(500)):
        near = (torch.nn.functional.normalize(features) @ bank.T).topk(20).indices
        votes = torch.nn.functional.one_hot(train[1][near], 10).sum(1)
        correct += (votes.argmax(1) == labels).sum().item()
    return 100 * correct / len(test[1])


def peer(options):
    torch.manual_seed(1)
    trunk = Trunk(torch.load(options.checkpoint, weights_only=True)["model_state_dict"])
    test = images_of(Path(options.images), "t10k")
    answer = {"threads": torch.get_num_threads()}
    if options.peer == "features":
        start = time.perf_counter()
        trunk.features(test[0], options.precision)
        answer["images_per_s"] = len(test[0]) / (time.perf_counter() - start)
    else:
        train = images_of(Path(options.images), "train")
        trunk.features(test[0][:TRUNK_BATCH], options.precision)
        start = time.perf_counter()
        seen = linear_epoch(trunk, train, test, options.precision)
        answer["epoch_s"] = time.perf_counter() - start
        answer["images"] = [len(train[0]), len(test[0])]
        answer["knn"] = nearest_neighbours(*seen)
    print(json.dumps(answer))


# The comparison.


def start(command):
    """What the command prints, and its seconds."""
    begun = time.perf_counter()
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    if done.returncode != 0:
        fail(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout, seconds


class Bench:
    def __init__(self, options, place):
        self.program, self.place = options.binary or common.binary(), Path(place)
        if options.data:
            self.images, self.dataset = Path(options.data).resolve() / "fashion_mnist", "fashion_mnist"
            if not any(self.images.glob("train-images-idx3-ubyte*")):
                fail(f"{self.images} has no images; ./scripts/get_data.sh fashion_mnist gets them")
        elif options.quick:
            # The binary holds the embedded images; these are the files that it holds.
            self.images, self.dataset = ROOT / "datasets/fashion_mnist_mini", "fashion_mnist_mini"
        else:
            self.images, self.dataset = upstream.fashion_home()
        self.data = self.images.parent
        self.checkpoint, self.runs = self.made_checkpoint(), 0

    def made_checkpoint(self):
        results = self.place / "encoder"
        words = ["--model=res10", "--epochs=0", "--device=cpu", "--precision=fp32", "--batch-size=256"]
        start([self.program, *words, f"--dataset-name={self.dataset}", f"--data={self.data}", f"--save-dir={results}"])
        return next(results.rglob("checkpoint_0000.pth.tar"))

    def ours(self, precision, *more):
        """linear_eval.json, and the seconds of the whole run."""
        self.runs += 1
        results = self.place / f"run_{self.runs}"
        words = ["--train-mode=eval", "--transfer-mode=linear_eval", f"--checkpoint={self.checkpoint}", "--device=cpu"]
        words += [f"--dataset-name={self.dataset}", f"--data={self.data}", f"--save-dir={results}", "--feature-cache=off"]
        _, seconds = start([self.program, *words, f"--precision={precision}", *more])
        return json.loads(next(results.rglob("linear_eval.json")).read_text()), seconds

    def theirs(self, what, precision):
        words = ["--peer", what, "--checkpoint", self.checkpoint, "--images", self.images, "--precision", precision]
        out, _ = start([sys.executable, __file__, *words])
        return json.loads(out.splitlines()[-1])

    def linear(self, precision):
        ours, seconds = self.ours(precision, f"--fc-epochs={EPOCHS}")
        theirs = self.theirs("linear", precision)
        if theirs["images"] != [ours["train_images"], ours["test_images"]] or ours["epochs_trained"] != EPOCHS:
            fail(f"the two did not do the same: {theirs['images']} images against {ours}")
        if abs(theirs["knn"] - ours["knn_plain_top1"]) > KNN_TOLERANCE[precision]:
            fail(f"the features differ: 20 neighbours find {ours['knn_plain_top1']}%, PyTorch's {theirs['knn']}%")
        peer_s = EPOCHS * theirs["epoch_s"]
        return {"ours": seconds, "theirs": peer_s, "ratio": peer_s / seconds, "knn": [ours["knn_plain_top1"], theirs["knn"]]}

    def features(self, precision):
        ours, _ = self.ours(precision, "--fc-epochs=1", f"--train-images={FEW}")
        rate = (ours["test_images"] + FEW) / ours["seconds_features"]
        theirs = self.theirs("features", precision)["images_per_s"]
        return {"ours": rate, "theirs": theirs, "ratio": rate / theirs}


def has_bf16():
    """Whether the CPU multiplies bfloat16 itself; elsewhere it is emulated, and nobody would use it."""
    with contextlib.suppress(OSError):
        return any(word in Path("/proc/cpuinfo").read_text() for word in ("avx512_bf16", "amx_bf16"))
    return False


def default_precisions(quick):
    if not has_bf16():
        return "fp32"
    return "bf16" if quick else "fp32,bf16"


def compare(options, place):
    bench = Bench(options, place)
    rounds = {(task, precision): [] for precision in options.precisions for task in options.tasks}
    wanted = lambda task: options.rounds or (1 if options.quick or task == "linear" else 3)
    for number in range(max(map(wanted, options.tasks))):
        for task, precision in rounds:
            if number < wanted(task):
                rounds[task, precision].append(getattr(bench, task)(precision))
                print(f"round {number + 1}/{wanted(task)}: {task} {precision}", file=sys.stderr)
    return [row_of(task, precision, measured) for (task, precision), measured in rounds.items()]


def row_of(task, precision, measured):
    work, unit, better = {
        "linear": (f"linear evaluation of a res10, {EPOCHS} epochs, {precision}", "s", "less"),
        "features": (f"features of the test images, res10, {precision}", "images/s", "more"),
    }[task]
    against = {"linear": "trunk in every epoch, PyTorch", "features": "PyTorch, channels-last"}[task]
    note = SCALED if task == "linear" else None
    sides = [[one[side] for one in measured] for side in ("ours", "theirs")]
    return common.row(work, against, unit, *sides, (">=", TARGETS[task]), better, note)


def main():
    options = common.arguments(__doc__, more_options)
    if options.peer:
        return peer(options)
    if options.rounds is not None and options.rounds < 1:
        fail("--rounds must be at least 1")
    options.tasks = [options.only] if options.only else list(TARGETS)
    options.precisions = (options.precision or default_precisions(options.quick)).split(",")
    if unknown := set(options.precisions) - {"fp32", "bf16"}:
        fail(f"--precision {', '.join(sorted(unknown))} is unknown; give fp32, bf16 or fp32,bf16")
    if not options.precision and "bf16" not in options.precisions:
        print("this CPU has no bfloat16 arithmetic: fp32 only", file=sys.stderr)
    with tempfile.TemporaryDirectory() as place:
        rows = compare(options, place)
    common.finish("eval", rows, options)


def more_options(parser):
    parser.add_argument("--only", choices=TARGETS, help="one of the two comparisons (default: both)")
    parser.add_argument("--rounds", type=int, help="default: 1 of the linear evaluation, 3 of the features; with --quick 1 of each")
    parser.add_argument("--precision", help="fp32, bf16 or both with a comma (default: both where the CPU has bf16, with --quick bf16 alone)")
    parser.add_argument("--data", help="directory that holds fashion_mnist/ (default: where it is installed, else the embedded images)")
    parser.add_argument("--binary", help="the program (default: what cargo build --release made)")
    for name in ("--peer", "--checkpoint", "--images"):
        parser.add_argument(name, help=argparse.SUPPRESS)


if __name__ == "__main__":
    main()
