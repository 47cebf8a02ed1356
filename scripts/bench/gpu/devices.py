"""What passes between the devices: checkpoints both ways, an evaluation on each; and fp16's scaler when a step overflows.

Without a GPU both sides are the CPU: then the code is tried, and to the bit.
"""

import json
import shutil

import runner
import torch

import common

# Nats. The step after the change of device starts from the same bits and the same pixels: rounding in float32.
FIRST_LOSS = 1e-4
# Nats. What rounding has grown to after some steps at a small rate.
LATER_LOSS = 2e-3
# Points of accuracy: 1,000 test images, of which a few lie within rounding of the border between two classes.
LINEAR, NEIGHBOURS = 0.5, 0.3
# A power of two no gradient of fp16 survives: its largest number is 65504.
OVERFLOWS = 2.0**60


def run(options, found):
    runs = runner.Runs(runner.width(options))
    for name, device in (("device", options.device), ("CPU", "cpu")):
        runs.start(name, train, options, f"on_{name}", device)
    runs.start("device to CPU", lambda: runner.resume(options, "to_cpu", runs["device"].checkpoint(0), "--device=cpu"))
    runs.start("CPU to device", lambda: runner.resume(options, "to_device", runs["CPU"].checkpoint(0), f"--device={options.device}"))
    for device in dict.fromkeys((options.device, "cpu")):
        runs.start(f"evaluation {device}", lambda device=device: evaluated(options, runs["device"].checkpoint(2), device))
    runs.start("fp16", fp16, options)
    for name, whole in (("device to CPU", "device"), ("CPU to device", "CPU")):
        check = f"a run goes on, {name}"
        found.attempt(check, lambda: goes_on(found, check, runs[whole], runs[name]))
    found.attempt(EVALUATIONS, lambda: evaluations(options, found, runs))
    found.attempt(SCALER, lambda: scaler(found, *runs["fp16"]))


EVALUATIONS = "both devices evaluate a checkpoint alike"
SCALER = "fp16: a step that overflows is left out, halves the scale and leaves the statistics"


def train(options, name, device):
    size = ["--model=res10", "--image-size=16", "--batch-size=8", "--train-images=24"]
    size = size if options.smoke else ["--model=res18", "--batch-size=64", "--train-images=256"]
    words = ["--precision=fp32", "--engine=tensor", "--optimizer=adam", "--lr=1e-4", "--warmup-epochs=0"]
    return runner.train(options, name, *size, *words, "--epochs=2", "--save-every-n-epochs=1", device=device)


def goes_on(found, check, whole, part):
    """Losses of the second epoch: of the run that stayed, and of the one that moved."""
    of = lambda run: [line["loss_infonce"] for line in run.lines("steps.jsonl") if line["epoch"] == 1]
    stayed, moved = of(whole), of(part)
    first, later = runner.apart(stayed[:1], moved[:1]), runner.apart(stayed, moved)
    numbers = {"steps": len(moved), "first_difference": first, "worst_difference": later, "allowed": LATER_LOSS}
    found.check(check, first <= FIRST_LOSS and later <= LATER_LOSS, **numbers)


def evaluated(options, checkpoint, device):
    """Accuracies of one checkpoint on one device, in float32."""
    place = options.place / options.stage / f"evaluation_{device.replace(':', '_')}"
    images = 64 if options.smoke else 2_000
    runner.call(options, [
        common.binary(), *runner.DATA, "--train-mode=eval", f"--checkpoint={checkpoint}", "--fc-optimizer=LBFGS", "--fc-epochs=100",
        "--fc-standardize", "--reg-weight=1e-2", "--precision=fp32", f"--train-images={images}", f"--device={device}",
        f"--save-dir={place}",
    ])  # fmt: skip
    return json.loads(next(place.rglob("linear_eval.json")).read_text())


def evaluations(options, found, runs):
    here, there = runs[f"evaluation {options.device}"], runs["evaluation cpu"]
    names = ["test_top1_last_epoch", "knn_plain_top1", "knn_weighted_top1"]
    differences = {name: abs(here[name] - there[name]) for name in names}
    holds = all(difference <= (LINEAR if name == names[0] else NEIGHBOURS) for name, difference in differences.items())
    found.check(EVALUATIONS, holds, **{name: here[name] for name in names}, largest_difference=max(differences.values()))


def fp16(options):
    """The state before and after an epoch of one step whose scale is far too large, and the epoch's numbers."""
    size = ["--model=res10", "--image-size=8", "--batch-size=4", "--train-images=4"]
    size = size if options.smoke else ["--model=res18", "--batch-size=64", "--train-images=64"]
    words = ["--precision=fp16", "--engine=tensor", "--optimizer=adam", "--lr=1e-3", "--warmup-epochs=0", "--save-every-n-epochs=1"]
    made = runner.train(options, "fp16", *size, *words, "--epochs=2")
    directory = options.place / options.stage / "fp16_overflow"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    before = torch.load(made.checkpoint(0), weights_only=True, map_location="cpu")
    before["scaler"]["scale"] = OVERFLOWS
    torch.save(before, directory / made.checkpoint(0).name)
    runner.call(options, [common.binary(), f"--resume={directory}", f"--device={options.device}"])
    moved = runner.Run(directory)
    after = torch.load(moved.checkpoint(2), weights_only=True, map_location="cpu")
    return before, after, moved.lines("metrics.jsonl")[-1]


def scaler(found, before, after, epoch):
    model = lambda state: state["model_state_dict"]
    # Weights and BatchNorm's running statistics alike; what counts forward passes counts this one too.
    kept = [name for name in model(before) if not name.endswith("num_batches_tracked")]
    same = all(torch.equal(model(before)[name], model(after)[name]) for name in kept)
    scale, counted = after["scaler"]["scale"], epoch["overflow_steps"]
    holds = same and scale == OVERFLOWS / 2 and counted == 1
    found.check(SCALER, holds, scale_before=OVERFLOWS, scale_after=scale, counted=counted, state_stays=same)
