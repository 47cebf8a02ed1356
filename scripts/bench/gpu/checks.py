"""Whether the program computes on a device what PyTorch computes there, and whether it computes the same thing twice.

In float32 without TF32, from the program's own initial weights and, exported by `flatnce preview`, its own views; the
reference is PyTorch in float64 on the same device, and float32 in PyTorch tells how far float32 may be from it.
"""

import os
import sys

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import runner
import torch
from safetensors.torch import load_file

import common
from report import Failed

sys.path.append(str(common.ROOT / "scripts/study"))
import model as study

TEMPERATURE = 0.1
LR = 1e-3
# Times PyTorch's own distance in float32 from itself in float64: two programs that add in different orders are each so far
# from the exact value, in directions of their own, and cuDNN's algorithms differ in how far.
FACTOR = 4
# Nats. Rounding of one step's loss in float32 is 1e-6 to 1e-5; a wrong view, weight or constant is far above 1e-3.
FIRST_LOSS = 1e-4
# Nats. Where PyTorch's own distance happens to be nothing, the losses of an epoch may be so far apart: steps multiply what
# differs, and those of a wrong optimiser or schedule are tenths apart.
EPOCH_LOSS = 2e-3
# Relative errors of gradients, where PyTorch's own happens to be smaller. The head's are smooth in what is rounded. The trunk's
# are not: each ReLU within rounding of 0 may fall either way, and of the few activations of a small batch one is worth up to
# 1% of a gradient. Wrong statistics or a lost view are worth tens of percent; TF32, in which no product may be, shows in the head.
GRADIENTS = {"head": 1e-4, "trunk": 2e-2}

SGD = ["--optimizer=sgd", "--momentum=0", "--weight-decay=0", "--scheduler=none", "--warmup-epochs=0"]


class Size:
    def __init__(self, options):
        self.model, self.batch, self.steps, self.side = ("res10", 8, 3, 16) if options.smoke else ("res18", 64, 20, 32)
        self.words = [f"--model={self.model}", f"--batch-size={self.batch}", f"--image-size={self.side}", "--precision=fp32"]


def run(options, found):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    size = Size(options)
    runs = runner.Runs(runner.width(options))
    start(options, size, runs)
    found.attempt("losses against PyTorch", lambda: losses(options, size, runs, found))
    found.attempt("gradients of the first step", lambda: gradients(options, size, runs, found))
    for check, name in ((RESUMED, "resumed"), (ENGINES, "by threads")):
        found.attempt(check, lambda: same(found, check, runs["whole"], runs[name]))


RESUMED = "1 + 2 epochs are 3, to the bit (--deterministic)"
ENGINES = "both engines give the same pixels: they train alike, to the bit (--deterministic)"


def same(found, check, whole, other):
    """Bits; and where they differ, by how much and from which step on."""
    numbers, holds = {}, runner.same_bits(whole.checkpoint(3), other.checkpoint(3))
    if not holds:
        # A run that went on has the steps after its start alone.
        pairs = list(zip(whole.losses()[-len(other.losses()):], other.losses()))
        numbers["worst_difference"] = max(abs(a - b) for a, b in pairs)
        numbers["first_step_that_differs"] = next((step for step, (a, b) in enumerate(pairs, 1) if a != b), None)
    found.check(check, holds, **numbers)


def start(options, size, runs):
    """All runs of the program, beside each other."""
    train = lambda name, *words: runs.start(name, runner.train, options, name.replace(" ", "_"), *size.words, *words)
    images = lambda steps: f"--train-images={size.batch * steps}"
    tensor = "--engine=tensor"
    train("start", *SGD, f"--lr={LR}", images(size.steps), tensor, "--epochs=0")
    for name, steps in (("views", size.steps), ("first views", 1)):
        runs.start(name, views, options, size, name.replace(" ", "_"), steps, images(steps))
    train("epoch", *SGD, f"--lr={LR}", images(size.steps), tensor, "--epochs=1")
    # An epoch of one step at rate 1: what the weights lose is the gradient.
    train("one", *SGD, "--lr=1", images(1), tensor, "--epochs=1")
    few = [images(2 if options.smoke else 4), "--lr=0.1", "--warmup-epochs=1", "--deterministic", "--save-every-n-epochs=1", "--epochs=3"]
    train("whole", *few, tensor)
    train("by threads", *few, "--engine=cpu")
    again = [f"--device={options.device}", "--deterministic"]
    runs.start("resumed", lambda: runner.resume(options, "resumed", runs["whole"].checkpoint(0), *again))


def views(options, size, name, steps, images):
    """u8 [steps, 2B, S, S, 3], as the training sees them."""
    place = options.place / options.stage
    file = place / f"{name}.safetensors"
    runner.call(options, [
        common.binary(), "preview", *runner.DATA, f"--images={size.batch}", f"--batches={steps}", f"--views={file}",
        f"--out={place / name}.png", images, f"--image-size={size.side}",
    ])  # fmt: skip
    return load_file(file)["views"]


def curve(options, size, state, batches, lr, kind=torch.float32):
    """Losses of SGD steps on batches of views; and the gradients of the first."""
    with torch.device("cpu"):
        encoder = study.Encoder(size.model, dict(state))
    encoder = encoder.to(options.device).to(kind).train()
    losses, first = [], None
    for batch in batches:
        projected = encoder(study.pixels(batch.to(options.device)).to(kind))
        with torch.device(options.device):
            positive, negatives = study.similarities(torch.nn.functional.normalize(projected))
            study.flatnce(positive, negatives, TEMPERATURE).backward()
            losses.append(study.infonce(positive.detach(), negatives.detach(), TEMPERATURE).item())
        if first is None:
            first = {name: p.grad.detach().cpu().clone() for name, p in encoder.named_parameters()}
        with torch.no_grad():
            for p in encoder.parameters():
                p -= lr * p.grad
                p.grad = None
    return losses, first


def losses(options, size, runs, found):
    state, batches = runner.weights(runs["start"].checkpoint(0)), runs["views"]
    theirs, _ = curve(options, size, state, batches, LR)
    exact, _ = curve(options, size, state, batches, LR, torch.float64)
    ours = runs["epoch"].losses()
    found.check("loss of the first step", abs(ours[0] - exact[0]) < FIRST_LOSS, ours=ours[0], pytorch=exact[0], allowed=FIRST_LOSS)
    allowed = max(EPOCH_LOSS, FACTOR * runner.apart(theirs, exact))
    difference = runner.apart(ours, exact)
    found.check("losses of an epoch", difference <= allowed, steps=len(ours), worst_difference=difference, allowed=allowed, last=ours[-1])


def gradients(options, size, runs, found):
    state, batches = runner.weights(runs["start"].checkpoint(0)), runs["first views"]
    moved = runner.weights(runs["one"].checkpoint(1))
    _, theirs = curve(options, size, state, batches, 1.0)
    _, exact = curve(options, size, state, batches, 1.0, torch.float64)
    if missing := [name for name in exact if name not in moved]:
        raise Failed(f"the program's checkpoint lacks {missing[0]}")
    ours = {name: state[name].double() - moved[name].double() for name in exact}
    for part, least in GRADIENTS.items():
        names = [name for name in exact if name.startswith("fc.") == (part == "head")]
        joined = lambda tensors: torch.cat([tensors[name].reshape(-1).double() for name in names])
        error = lambda tensors: ((joined(tensors) - joined(exact)).norm() / joined(exact).norm()).item()
        allowed = max(least, FACTOR * error(theirs))
        numbers = {"relative_error": error(ours), "allowed": allowed, "pytorch": error(theirs)}
        found.check(f"gradients of the first step, {part}", error(ours) <= allowed, **numbers)
