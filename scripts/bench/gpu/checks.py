"""Whether the program works and computes on a device what PyTorch computes there: stages doctor, trainings, checks and study.

The comparison is in float32 without TF32, from the program's own initial weights and, exported by `flatnce preview`, its own
views; the reference is PyTorch in float64 on the same device, and float32 in PyTorch tells how far float32 may be from it.
"""

import json
import math
import shutil
import subprocess

import embedded
import program
from program import Failed


# ---- doctor ---------------------------------------------------------------------------------------------------------


def doctor(options, found):
    """Whether the machine can do anything at all: flatnce doctor in both forms, and what card it is."""
    both, words = program.Runs(2), program.command("doctor", device=options.device)
    both.start("text", program.outcome, words)
    both.start("json", program.outcome, [*words, "--json"])
    status, said, errors = both["text"]
    # Its own table stands in the summary as it is.
    found.note(said.rstrip() or errors.strip())
    json_status, said, errors = both["json"]
    try:
        told = json.loads(said)
    except ValueError as error:
        raise Failed(f"doctor --json wrote no JSON: {said[:200]}{errors[-200:]}") from error
    # Without the CUDA part steps are not replayed, which "replay" tells; everything else can still be seen.
    wrong = sorted(one["name"] for one in told["findings"] if one["health"] == "wrong")
    details = {"wrong": ", ".join(wrong)} if wrong else {}
    found.check("the doctor finds nothing wrong", status == 0 or wrong == ["CUDA part"], status=status, **details)
    found.check("its JSON says the same", told["healthy"] is (json_status == 0), healthy=told["healthy"])
    found.facts(card=card(options, found), doctor=told["findings"], program=program.call("--version").strip())


def card(options, found):
    """What nvidia-smi says of the GPU; None where there is none, or no nvidia-smi."""
    left_out = lambda why: found.left_out("the card's name", why)
    if options.device == "cpu":
        return left_out("this is the CPU")
    names = ["name", "driver_version", "memory.total", "clocks.max.sm", "clocks.max.mem", "power.limit"]
    command = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader", "-i", options.device.partition(":")[2] or "0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return left_out(f"nvidia-smi: {error}")
    values = [value.strip() for value in done.stdout.strip().split(",")]
    if done.returncode != 0 or len(values) != len(names):
        return left_out(f"nvidia-smi ended with status {done.returncode}: {(done.stdout + done.stderr).strip()[-200:]}")
    found.note(", ".join(f"{name} {value}" for name, value in zip(names, values)))
    return dict(zip(names, values))


# ---- trainings ------------------------------------------------------------------------------------------------------

CASES = {
    "tensor engine, bf16, LARS": {"engine": "tensor", "precision": "bf16", "optimizer": "lars", "warmup_epochs": 1},
    "fp16, Adam": {"engine": "tensor", "precision": "fp16", "optimizer": "adam", "lr": 1e-3, "warmup_epochs": 0},
    "images through the CPU's threads, two parts, SGD": {
        "engine": "cpu", "grad_cache": 2, "precision": "fp32", "optimizer": "sgd", "lr": 1e-2, "warmup_epochs": 0,
    },
}  # fmt: skip


def trainings(options, found):
    """Three, as different as they can be, beside each other: each comes to its end with sound numbers."""
    runs = embedded.runs(options)
    for number, (name, flags) in enumerate(CASES.items()):
        # A CPU has no arithmetic for fp16.
        images, side = (4, 8) if "fp16" in name else (8, 16)
        tiny = {"model": "res10", "batch_size": 4, "train_images": images, "image_size": side}
        size = tiny if options.smoke else {"model": "res18", "batch_size": 128}
        runs.start(name, embedded.train, options, f"run{number}", **size, **flags, epochs=2)
    for name in CASES:
        found.attempt(f"trains: {name}", lambda: judge(found, name, runs[name]))
    first = next(iter(CASES))
    found.attempt("curves.png is drawn", lambda: shutil.copy(runs[first].directory / "curves.png", options.out / "curves.png"))


def judge(found, name, made):
    losses, epochs = made.losses(), made.lines("metrics.jsonl")
    finite = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    # A step of fp16 that overflows and is left out may have no loss.
    left_out = sum(epoch.get("overflow_steps", 0) for epoch in epochs)
    sound = bool(finite) and len(losses) - len(finite) <= left_out
    # An untrained network is at about ln(2B - 1); one that diverges is far above.
    near = sound and max(finite) < 2 * epochs[-1]["mi_ceiling_nats"]
    numbers = {key: epochs[-1][key] for key in ("loss_scale", "memory_peak_mib") if key in epochs[-1]}
    steps = {"steps": len(losses), "left_out": left_out, "first": losses[0], "last": losses[-1]}
    found.check(f"trains: {name}", near, **steps, **numbers)


# ---- checks against PyTorch -----------------------------------------------------------------------------------------

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
RESUMED = "1 + 2 epochs are 3, to the bit (--deterministic)"
ENGINES = "both engines give the same pixels: they train alike, to the bit (--deterministic)"


def checks(options, found):
    import torch

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    runs = embedded.runs(options)
    model, batch, steps, side = ("res10", 8, 3, 16) if options.smoke else ("res18", 64, 20, 32)
    start(options, runs, model, batch, steps, side)
    found.attempt("losses against PyTorch", lambda: losses(options, model, runs, found))
    found.attempt("gradients of the first step", lambda: gradients(options, model, runs, found))
    for check, name in ((RESUMED, "resumed"), (ENGINES, "by threads")):
        found.attempt(check, lambda: same(found, check, runs["whole"], runs[name]))


def start(options, runs, model, batch, steps, side):
    """All runs of the program, beside each other."""
    size = {"model": model, "batch_size": batch, "image_size": side, "precision": "fp32"}
    train = lambda name, **flags: runs.start(name, embedded.train, options, name, **size, **flags)
    sgd = {"optimizer": "sgd", "momentum": 0, "weight_decay": 0, "scheduler": "none", "warmup_epochs": 0, "engine": "tensor"}
    train("start", **sgd, lr=LR, train_images=batch * steps, epochs=0)
    for name, count in (("views", steps), ("first views", 1)):
        flags = {"images": batch, "batches": count, "train_images": batch * count, "image_size": side}
        runs.start(name, program.views, embedded.place(options, name), **embedded.IMAGES, **flags)
    train("epoch", **sgd, lr=LR, train_images=batch * steps, epochs=1)
    # An epoch of one step at rate 1: what the weights lose is the gradient.
    train("one", **sgd, lr=1, train_images=batch, epochs=1)
    few = {"train_images": batch * (2 if options.smoke else 4), "lr": 0.1, "warmup_epochs": 1, "save_every_n_epochs": 1, "epochs": 3}
    train("whole", **few, deterministic="true", engine="tensor")
    train("by threads", **few, deterministic="true", engine="cpu")
    runs.start("resumed", lambda: embedded.resume(options, "resumed", runs["whole"].checkpoint(0), deterministic="true"))


def curve(options, model, state, batches, lr, precise=False):
    """Losses of SGD steps on batches of views; and the gradients of the first."""
    import pytorch
    import torch

    kind = torch.float64 if precise else torch.float32
    encoder = pytorch.Encoder(model, state).to(options.device).to(kind).train()
    losses, first = [], None
    for batch in batches:
        losses.append(pytorch.backward(encoder, pytorch.pixels(batch.to(options.device)).to(kind)))
        first = first or {name: p.grad.detach().cpu().clone() for name, p in encoder.named_parameters()}
        with torch.no_grad():
            for p in encoder.parameters():
                p -= lr * p.grad
                p.grad = None
    return losses, first


def losses(options, model, runs, found):
    state, batches = program.weights(runs["start"].checkpoint(0)), runs["views"]
    theirs, _ = curve(options, model, state, batches, LR)
    exact, _ = curve(options, model, state, batches, LR, precise=True)
    ours = runs["epoch"].losses()
    numbers = {"ours": ours[0], "pytorch": exact[0], "allowed": FIRST_LOSS}
    found.check("loss of the first step", abs(ours[0] - exact[0]) < FIRST_LOSS, **numbers)
    allowed, difference = max(EPOCH_LOSS, FACTOR * program.apart(theirs, exact)), program.apart(ours, exact)
    numbers = {"steps": len(ours), "worst_difference": difference, "allowed": allowed, "last": ours[-1]}
    found.check("losses of an epoch", difference <= allowed, **numbers)


def relative_error(tensors, exact, names):
    """Of these tensors, joined."""
    import torch

    joined = lambda tensors: torch.cat([tensors[name].reshape(-1).double() for name in names])
    return ((joined(tensors) - joined(exact)).norm() / joined(exact).norm()).item()


def gradients(options, model, runs, found):
    state, batches = program.weights(runs["start"].checkpoint(0)), runs["first views"]
    moved = program.weights(runs["one"].checkpoint(1))
    _, theirs = curve(options, model, state, batches, 1.0)
    _, exact = curve(options, model, state, batches, 1.0, precise=True)
    if missing := [name for name in exact if name not in moved]:
        raise Failed(f"the program's checkpoint lacks {missing[0]}")
    ours = {name: state[name].double() - moved[name].double() for name in exact}
    for part, least in GRADIENTS.items():
        names = [name for name in exact if name.startswith("fc.") == (part == "head")]
        error = lambda tensors: relative_error(tensors, exact, names)
        allowed = max(least, FACTOR * error(theirs))
        numbers = {"relative_error": error(ours), "allowed": allowed, "pytorch": error(theirs)}
        found.check(f"gradients of the first step, {part}", error(ours) <= allowed, **numbers)


def same(found, check, whole, other):
    """Bits; and where they differ, by how much and from which step on."""
    numbers, holds = {}, program.same_bits(whole.checkpoint(3), other.checkpoint(3))
    if not holds:
        # A run that went on has the steps after its start alone.
        pairs = list(zip(whole.losses()[-len(other.losses()) :], other.losses()))
        numbers["worst_difference"] = max(abs(a - b) for a, b in pairs)
        numbers["first_step_that_differs"] = next((step for step, (a, b) in enumerate(pairs, 1) if a != b), None)
    found.check(check, holds, **numbers)


# ---- study ----------------------------------------------------------------------------------------------------------

EPOCHS = 20


def study(options, found):
    """The study's first points on a GPU: FlatCLR and SimCLR at batch 32 beside each other, by scripts/study/batch.py's rule."""
    size = {"model": "res10", "image_size": 8, "train_images": 64, "epochs": 1} if options.smoke else {"model": "res18", "epochs": EPOCHS}
    recipe = {"batch_size": 32, "optimizer": "adam", "lr": f"{1.25e-4 * math.sqrt(32):.6g}", "crop_scale_min": 0.2, "warmup_epochs": 1}
    runs, objectives = program.Runs(2), {"flatclr": "FlatCLR", "simclr": "SimCLR"}
    for clr in objectives:
        runs.start(clr, embedded.train, options, clr, **size, **recipe, clr=clr, save_every_n_epochs=100, knn_every=size["epochs"])
    for clr, name in objectives.items():
        found.attempt(name, lambda: point(found, name, runs[clr].lines("metrics.jsonl")[-1]))


def point(found, name, last):
    """What the last epoch's line says."""
    found.row(f"{name}, batch 32, {last['epoch'] + 1} epochs: contrastive top-1", None, "%", [last["contrastive_top1"]], None)
    found.row(f"{name}, batch 32: loss", None, "nats", [last["loss_infonce"]], None)
    found.row(f"{name}, batch 32: nearest neighbours, test images", None, "%", [last["knn_top1"]], None)
