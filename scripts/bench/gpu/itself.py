"""Whether the program agrees with itself: on another device, replayed and fused, by two processes: devices, replay, ranks.

Without a GPU both sides are the CPU: then the code is tried, and to the bit.
"""

import embedded
import program
from checks import GRADIENTS, relative_error
from program import Failed, apart

# ---- devices --------------------------------------------------------------------------------------------------------

# Nats. The step after the change of device starts from the same bits and the same pixels: rounding in float32.
FIRST_LOSS = 1e-4
# Nats. What rounding has grown to after some steps at a small rate.
LATER_LOSS = 2e-3
# Points of accuracy: 1,000 test images, of which a few lie within rounding of the border between two classes.
ACCURACIES = {"test_top1_last_epoch": 0.5, "knn_plain_top1": 0.3, "knn_weighted_top1": 0.3}
# A power of two no gradient of fp16 survives: its largest number is 65504.
OVERFLOWS = 2.0**60
EVALUATIONS = "both devices evaluate a checkpoint alike"
SCALER = "fp16: a step that overflows is left out, halves the scale and leaves the statistics"


def devices(options, found):
    """Checkpoints both ways, an evaluation on each device; and fp16's scaler when a step overflows."""
    runs, resume = embedded.runs(options), embedded.resume
    size = {"model": "res10", "image_size": 16, "batch_size": 8, "train_images": 24}
    size = size if options.smoke else {"model": "res18", "batch_size": 64, "train_images": 256}
    words = {"precision": "fp32", "engine": "tensor", "optimizer": "adam", "lr": 1e-4, "warmup_epochs": 0, "save_every_n_epochs": 1}
    for name, device in (("device", options.device), ("CPU", "cpu")):
        runs.start(name, embedded.train, options, f"on {name}", **size, **words, epochs=2, device=device)
    runs.start("device to CPU", lambda: resume(options, "to_cpu", runs["device"].checkpoint(0), device="cpu"))
    runs.start("CPU to device", lambda: resume(options, "to_device", runs["CPU"].checkpoint(0)))
    for device in dict.fromkeys((options.device, "cpu")):
        runs.start(f"evaluation {device}", lambda device=device: evaluated(options, runs["device"].checkpoint(2), device))
    runs.start("fp16", fp16, options)
    for name, whole in (("device to CPU", "device"), ("CPU to device", "CPU")):
        check = f"a run goes on, {name}"
        found.attempt(check, lambda: goes_on(found, check, runs[whole], runs[name]))
    found.attempt(EVALUATIONS, lambda: evaluations(found, runs[f"evaluation {options.device}"], runs["evaluation cpu"]))
    found.attempt(SCALER, lambda: scaler(found, *runs["fp16"]))


def goes_on(found, check, whole, part):
    """Losses of the second epoch: of the run that stayed, and of the one that moved."""
    of = lambda run: [line["loss_infonce"] for line in run.lines("steps.jsonl") if line["epoch"] == 1]
    stayed, moved = of(whole), of(part)
    first, later = apart(stayed[:1], moved[:1]), apart(stayed, moved)
    numbers = {"steps": len(moved), "first_difference": first, "worst_difference": later, "allowed": LATER_LOSS}
    found.check(check, first <= FIRST_LOSS and later <= LATER_LOSS, **numbers)


def evaluated(options, checkpoint, device):
    """Accuracies of one checkpoint on one device, in float32."""
    classifier = {"fc_optimizer": "LBFGS", "fc_epochs": 100, "fc_standardize": "true", "reg_weight": 1e-2, "precision": "fp32"}
    images, place = 64 if options.smoke else 2_000, embedded.fresh(options, f"evaluation_{device.replace(':', '_')}")
    return program.evaluated(place, **embedded.IMAGES, checkpoint=checkpoint, **classifier, train_images=images, device=device)


def evaluations(found, here, there):
    differences = {name: abs(here[name] - there[name]) for name in ACCURACIES}
    holds = all(differences[name] <= allowed for name, allowed in ACCURACIES.items())
    numbers = {name: here[name] for name in ACCURACIES}
    found.check(EVALUATIONS, holds, **numbers, largest_difference=max(differences.values()))


def fp16(options):
    """The state before and after an epoch of one step whose scale is far too large, and the epoch's numbers."""
    import torch

    size = {"model": "res10", "image_size": 8, "batch_size": 4, "train_images": 4}
    size = size if options.smoke else {"model": "res18", "batch_size": 64, "train_images": 64}
    words = {"precision": "fp16", "engine": "tensor", "optimizer": "adam", "lr": 1e-3, "warmup_epochs": 0, "save_every_n_epochs": 1}
    made = embedded.train(options, "fp16", **size, **words, epochs=2)
    before = torch.load(made.checkpoint(0), weights_only=True, map_location="cpu")
    before["scaler"]["scale"] = OVERFLOWS
    changed = embedded.place(options, made.checkpoint(0).name)
    torch.save(before, changed)
    moved = embedded.resume(options, "fp16_overflow", changed)
    after = torch.load(moved.checkpoint(2), weights_only=True, map_location="cpu")
    return before, after, moved.lines("metrics.jsonl")[-1]


def scaler(found, before, after, epoch):
    import torch

    model = lambda state: state["model_state_dict"]
    # Weights and BatchNorm's running statistics alike; what counts forward passes counts this one too.
    kept = [name for name in model(before) if not name.endswith("num_batches_tracked")]
    same = all(torch.equal(model(before)[name], model(after)[name]) for name in kept)
    scale, counted = after["scaler"]["scale"], epoch["overflow_steps"]
    numbers = {"scale_before": OVERFLOWS, "scale_after": scale, "counted": counted, "state_stays": same}
    found.check(SCALER, same and scale == OVERFLOWS / 2 and counted == 1, **numbers)


# ---- replay ---------------------------------------------------------------------------------------------------------

REPLAYED = "step: replayed as a CUDA graph"
FUSED = "kernels: fused"
# Two runs of one command may differ: cuDNN tries its algorithms, may choose differently, and some add in no order. Where bits
# differ, a replayed run may be so many times as far from a plain one as a second plain one is, or as far as rounding matters.
FACTOR = 4
# The fused kernels round to bf16 less often than the plain ones: their losses differ by as much as rounding to bf16 matters,
# which is how far the plain run in bf16 is from the plain run in float32. Twice that; and never less than this, in nats.
BF16_FACTOR, BF16_LEAST = 2, 1e-3
OPTIMISERS = {"adam": {"optimizer": "adam", "lr": 1e-3}, "lars": {"optimizer": "lars", "lr": 1}}
KERNELS = {"fused_kernels": "yes"}
PLAIN = {"cuda_graph": "no", "fused_kernels": "no", "precision": "bf16"}
GRAPH, FLOAT32 = PLAIN | {"cuda_graph": "auto"}, PLAIN | {"precision": "fp32"}
RUNS = {
    "adam": PLAIN,
    "adam again": PLAIN,
    "adam replayed": GRAPH,
    "adam float32": FLOAT32,
    "adam fused": PLAIN | KERNELS,
    "adam fused replayed": GRAPH | KERNELS,
    "lars": PLAIN,
    "lars again": PLAIN,
    "lars replayed": GRAPH,
    "lars float32": FLOAT32,
}


def replay(options, found):
    """The step replayed as a CUDA graph, and the fused kernels, against the plain step; the log says that they ran.

    All runs train the same 20 steps of res18 at batch 64, while the rate rises from 0: a recorded rate, count or image that
    stands still would show. On the CPU the flags change nothing, to the bit.
    """
    runs = embedded.runs(options)
    size = {"model": "res10", "image_size": 16, "batch_size": 4, "train_images": 8}
    size = size if options.smoke else {"model": "res18", "batch_size": 64, "train_images": 1280}
    for name, words in RUNS.items():
        flags = {**size, **OPTIMISERS[name.split()[0]], **words, "engine": "tensor", "epochs": 1, "warmup_epochs": 1, "log_every": 0}
        runs.start(name, embedded.train, options, name, **flags)
    for optimiser in OPTIMISERS:
        check = f"a replayed run is a plain one, {optimiser}"
        found.attempt(check, lambda: replayed(found, check, *(runs[optimiser + rest] for rest in ("", " again", " replayed", " float32"))))
    found.attempt("fused kernels give the plain losses", lambda: fused(found, runs))
    for name, sentence in (("adam replayed", REPLAYED), ("adam fused", FUSED)):
        if options.device == "cpu":
            found.left_out(f"whether the log says '{sentence}'", "this is the CPU")
        else:
            found.attempt(f"the log says '{sentence}'", lambda: says(found, runs[name], sentence))


def replayed(found, check, plain, again, other, float32):
    noise, difference, rounding = (apart(plain.losses(), run.losses()) for run in (again, other, float32))
    same, allowed = program.same_bits(plain.checkpoint(1), other.checkpoint(1)), max(FACTOR * noise, rounding)
    numbers = {"worst_difference": difference, "allowed": allowed, "plain_from_itself": noise}
    holds = same and difference == 0 or difference <= allowed
    found.check(check, holds, steps=len(other.losses()), same_bits=same, **numbers)


def fused(found, runs):
    plain = runs["adam"].losses()
    launched, replayed, rounding = (apart(plain, runs[f"adam {name}"].losses()) for name in ("fused", "fused replayed", "float32"))
    allowed = max(BF16_LEAST, BF16_FACTOR * rounding)
    numbers = {"worst_difference": launched, "worst_difference_replayed": replayed, "allowed": allowed, "bf16_from_float32": rounding}
    found.check("fused kernels give the plain losses", max(launched, replayed) <= allowed, **numbers)


def says(found, made, sentence):
    """The last line on the matter: a recording that fails is told after the first."""
    subject = sentence.partition(":")[0] + ":"
    lines = [line.strip() for line in made.words() if subject in line]
    if not lines:
        raise Failed(f"the program said nothing of '{subject} ...'")
    found.check(f"the log says '{sentence}'", sentence in lines[-1], line=lines[-1])


# ---- ranks ----------------------------------------------------------------------------------------------------------

# Nats, in every step: sums of two halves in float32 instead of one. The rate is so small that weights hardly move: at 1e-3
# rounding grows to 1e-2 within 20 steps, and PyTorch in float32 is as far from itself in float64.
ALLOWED, LR = 1e-4, 1e-6
# NCCL refuses two ranks on one device of one machine; with names of machines of their own they are two, over sockets: slow,
# and the same sums. Nothing but sockets of this machine.
SOCKETS = {"NCCL_IB_DISABLE": "1", "NCCL_MNNVL_ENABLE": "0", "NCCL_SOCKET_IFNAME": "lo"}


def ranks(options, found):
    """Two processes that train one network on one card, against one process: NCCL on a GPU, Gloo on the CPU."""
    size, batch, steps = {"model": "res10", "image_size": 16}, 8, 3
    size, batch, steps = (size, batch, steps) if options.smoke else ({"model": "res18"}, 128, 20)
    words = {"engine": "tensor", "precision": "fp32", "optimizer": "sgd", "warmup_epochs": 0, "epochs": 1, "knn_every": 0}
    words |= {**size, "batch_size": batch, "scheduler": "none"}
    both = lambda name, **flags: pair_and_one(options, name, {**words, **flags})
    check = "two processes train as one does"
    found.attempt(check, lambda: same_losses(found, check, *both("losses", lr=LR, train_images=batch * steps)))
    plain = {"lr": 1, "train_images": batch, "momentum": 0, "weight_decay": 0}
    start = lambda: embedded.train(options, "start", **{**words, **plain, "epochs": 0})
    check = "two processes have the gradients of one"
    found.attempt(check, lambda: same_gradients(found, check, start(), *both("gradients", **plain)))


def pair_and_one(options, name, words):
    """The runs of two processes and of one."""
    results = embedded.fresh(options, f"{name} of two")
    # All ranks on one device: it is local rank 0 of each of two machines.
    device = "cpu" if options.device == "cpu" else "cuda"
    command = program.command(**embedded.IMAGES, device=device, save_dir=results, **words, distributed_timeout=60)
    visible = {} if options.device == "cpu" else {"CUDA_VISIBLE_DEVICES": options.device.partition(":")[2] or "0"}
    place = lambda rank: {"LOCAL_RANK": 0, "NCCL_HOSTID": f"rank{rank}", **visible, **SOCKETS}
    program.ranks(command, 2, place)
    return program.below(results), embedded.train(options, f"{name} of one", **words)


def same_losses(found, check, pair, one):
    difference = apart(pair.losses(), one.losses())
    numbers = {"steps": len(pair.losses()), "worst_difference": difference, "allowed": ALLOWED}
    found.check(check, difference <= ALLOWED, **numbers)


def same_gradients(found, check, start, pair, one):
    """What one step at rate 1 takes off the weights, with which all begin."""
    start, alone, shared = (program.weights(run.checkpoint(epochs)) for run, epochs in ((start, 0), (one, 1), (pair, 1)))
    names = [name for name in start if name.endswith((".weight", ".bias"))]
    for part, allowed in GRADIENTS.items():
        own = [name for name in names if name.startswith("fc.") == (part == "head")]
        moved = lambda end: {name: start[name].double() - end[name].double() for name in own}
        error = relative_error(moved(shared), moved(alone), own)
        found.check(f"{check}, {part}", error <= allowed, relative_error=error, allowed=allowed, parameters=len(own))
