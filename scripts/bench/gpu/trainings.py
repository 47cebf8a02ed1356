"""Three small trainings, as different as they can be, beside each other: each comes to its end with sound numbers."""

import math
import shutil

import runner

CASES = {
    "tensor engine, bf16, LARS": ["--engine=tensor", "--precision=bf16", "--optimizer=lars", "--warmup-epochs=1"],
    "fp16, Adam": ["--engine=tensor", "--precision=fp16", "--optimizer=adam", "--lr=1e-3", "--warmup-epochs=0"],
    "images through the CPU's threads, two parts, SGD": [
        "--engine=cpu", "--grad-cache=2", "--precision=fp32", "--optimizer=sgd", "--lr=1e-2", "--warmup-epochs=0",
    ],
}  # fmt: skip


def run(options, found):
    runs = runner.Runs(runner.width(options))
    for number, (name, words) in enumerate(CASES.items()):
        runs.start(name, runner.train, options, f"run{number}", *size(options, name), *words, "--epochs=2")
    for name in CASES:
        found.attempt(f"trains: {name}", lambda: judge(found, name, runs[name]))
    found.attempt("curves.png is drawn", lambda: shutil.copy(runs[next(iter(CASES))].directory / "curves.png", options.out / "curves.png"))


def size(options, name):
    if not options.smoke:
        return ["--model=res18", "--batch-size=128"]
    # A CPU has no arithmetic for fp16.
    images, side = (4, 8) if "fp16" in name else (8, 16)
    return ["--model=res10", "--batch-size=4", f"--train-images={images}", f"--image-size={side}"]


def judge(found, name, made):
    losses, epochs = made.losses(), made.lines("metrics.jsonl")
    finite = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    # A step of fp16 that overflows and is left out may have no loss.
    left_out = sum(epoch.get("overflow_steps", 0) for epoch in epochs)
    sound = bool(finite) and len(losses) - len(finite) <= left_out
    # An untrained network is at about ln(2B - 1); one that diverges is far above.
    near = sound and max(finite) < 2 * epochs[-1]["mi_ceiling_nats"]
    numbers = {key: epochs[-1][key] for key in ("loss_scale", "memory_peak_mib") if key in epochs[-1]}
    found.check(
        f"trains: {name}", near, steps=len(losses), left_out=left_out, first=losses[0], last=losses[-1], **numbers
    )
