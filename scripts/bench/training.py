"""What bench.sh measures of whole trainings: parts train, start, precision and distributed."""

import json
import os
import statistics
import tempfile
import time

import program
from common import column, in_turns, markdown, measure, row, say
from program import CORES, Failed, Timed

BATCH = 128


def flags(**more):
    """Ours: Fashion-MNIST at 32x32 RGB on the CPU."""
    import pytorch  # It imports PyTorch, which takes seconds.

    return {**pytorch.fashion()[1], "device": "cpu", **more}


def ours(model, steps_per_epoch, epochs, **more):
    """A run of whole epochs, of which the first is not in the rate."""
    images = steps_per_epoch * BATCH
    run = Timed(**flags(model=model, batch_size=BATCH, epochs=epochs, train_images=images, **more))
    result = {"first": run.arrivals[0] - run.begun, "peak_mib": run.peak_mib}
    if epochs > 1:
        result["rate"] = (epochs - 1) * images / (run.arrivals[-1] - run.arrivals[0])
    return result


def theirs(manner, model, warm, steps):
    """A run of a peer: `warm` steps that do not count, `steps` that do."""
    begun, watches, counts = time.time(), [], {manner: (warm, steps, int(steps > 0))}
    [result] = program.peers(counts, started=lambda child: watches.append(program.Watch(child.pid)), model=model)
    peak = watches[0].stop()
    if "error" in result:
        raise Failed(f"{manner}: {result['error']}")
    return {"first": result["first"] - begun, "peak_mib": peak, "rate": next(iter(result["rates"]), None)}


# ---- train ----------------------------------------------------------------------------------------------------------


def train(options):
    """Training: images a second in steady state, memory, and what the loop costs beside the arithmetic.

    Images are Fashion-MNIST at 32x32 RGB (the whole set where it is installed, else the sample in the repository), batch
    128, LARS, two views an image. Each number is that of a process of its own; ours and theirs take turns.
    """
    rows = []
    for model in ["res10", "res18"]:
        if options.only in (None, model):
            rows += model_rows(model, options.quick)
    looped = options.only if options.only in ("res10", "res18") else "res10"
    return [*rows, *loop_rows(looped, options.quick), diagnostics_row(looped, options.quick)]


def model_rows(model, quick):
    best = lambda: ours(model, *((2, 3) if quick else (8, 4)), quiet=True)
    plain = lambda: ours(model, *((2, 2) if quick else (6, 4)), quiet=True, precision="fp32")
    recipe = lambda: theirs("upstream", model, *((1, 2) if quick else (2, 8)))
    tuned = lambda: theirs("tuned", model, *((2, 5) if quick else (4, 16)))
    works = [best, recipe, tuned, plain]
    if quick and model != "res10":
        works = works[:2]  # torch.compile and a second precision would take minutes.
    say(f"training {model}: flatnce, upstream's recipe" + (", PyTorch tuned, flatnce in fp32" * (len(works) > 2)))
    results = in_turns(1 if quick else 3, *works)
    rates = [column(kept, "rate") for kept in results]
    target = {"res10": 3.2, "res18": 2.7}[model]
    rows = [row(f"training {model}, best precision", "upstream's recipe", "images/s", *rates[:2], (">=", target))]
    if len(works) > 2:
        peer = "PyTorch channels-last, bf16, torch.compile"
        rows.append(row(f"training {model}, best precision", peer, "images/s", rates[0], rates[2], (">=", 1.0)))
        rows.append(row(f"training {model}, fp32", "upstream's recipe", "images/s", rates[3], rates[1], (">=", 1.5)))
    if model == "res18":
        peaks = [column(kept, "peak_mib") for kept in results[:2]]
        note = "memory: the peak of the sum of PSS over the process and its workers, looked at twice a second"
        rows.append(row("peak memory, training res18", "upstream's recipe", "MiB", *peaks, ("<=", 0.6), "share", note))
    return rows


def loop_rows(model, quick):
    """The program's loop against the bare arithmetic on one batch, in turns within one process."""
    say(f"what the loop costs, {model}")
    rounds, steps = (2, 4) if quick else (7, 12)
    with measure("loop", model, "auto", steps) as served:
        answers = [served.ask() for _ in range(rounds)]
    note = (
        "loop: an epoch of the program against as many bare steps (forward, loss, backward, optimiser) on a batch that "
        "is there, in turns in one process; the loader's CPU time is that of its threads, as a share of one core"
    )
    percent = lambda work, name, target=None: row(f"{work}, {model}", None, "%", column(answers, name, 100), None, target, note=note)
    return [
        percent("all but forward, backward, optimiser", "share", ("<=", 3.0)),
        percent("waiting for data", "data_wait_share"),
        percent("CPU time of the loader", "loader_cpu_share"),
    ]


def diagnostics_row(model, quick):
    """What the numbers for people cost, as a share of a step: a close look in 50 steps, an epoch of 468 steps."""
    say(f"diagnostics, {model}")
    with measure("diagnostics", model) as served:
        served.ask()
        answers = [served.ask() for _ in range(2 if quick else 9)]
    shares = [100 * (a["every"] + a["closer"] / 50 + a["epoch"] / 468) / a["step"] for a in answers]
    note = (
        "diagnostics: the numbers of every step, 1/50 of a close look (--log-every) and 1/468 of an epoch's end (60,000 "
        "images at batch 128), as a share of a step"
    )
    return row(f"diagnostics, {model}", None, "%", shares, None, ("<=", 1.0), note=note)


def start(options):
    """From the start of the process to the end of its first optimiser step, res18, batch 128.

    Ours is taken when the line of an epoch of one step is in metrics.jsonl, so that the epoch's end counts against us.
    """
    say("start to first step")
    works = lambda: ours("res18", 1, 1, quiet=True)["first"], lambda: theirs("upstream", "res18", 1, 0)["first"]
    mine, peers = in_turns(1 if options.quick else 5, *works)
    return [row("start to first step, res18", "upstream's recipe", "s", mine, peers, ("<=", 0.3), "share")]


# ---- precision ------------------------------------------------------------------------------------------------------

LABELLED = 10_000
# Points of top-1 that bfloat16 may lose.
MOST_LOST = 1.0


def precision(options):
    """What bfloat16 costs in accuracy: the same trainings in float32 and in bfloat16, evaluated alike.

    A res10 is pre-trained with FlatNCE at batch 128 in each precision from each seed (the same initial weights, images,
    views and schedule), then evaluated in float32 with a linear classifier on 10,000 labelled training images and the
    10,000 test images of Fashion-MNIST. The target is that of the mean over the seeds.
    """
    defaults = {"seeds": 1, "images": 640, "epochs": 1} if options.quick else {"seeds": 3, "images": 5_000, "epochs": 5}
    seeds, images, epochs = (getattr(options, name) or value for name, value in defaults.items())
    results = {"fp32": [], "bf16": []}
    for seed in range(1, seeds + 1):
        for name, kept in results.items():
            say(f"{name}, seed {seed}")
            kept.append(accuracies(images, epochs, precision=name, seed=seed))
    note = (
        f"accuracy: pre-training of {epochs} epochs on {images:,} images, seeds 1 to {seeds}; "
        "ratio is the difference in points, bf16 minus fp32"
    )
    return [
        difference_row(f"{work} top-1 after training in bf16", *(column(results[name], key) for name in ("bf16", "fp32")), most_lost, note)
        for work, key, most_lost in (("linear", "test_top1_last_epoch", MOST_LOST), ("kNN", "knn_weighted_top1", None))
    ]


def accuracies(images, epochs, **more):
    """The last epoch's, in linear_eval.json's words."""
    with tempfile.TemporaryDirectory() as place:
        recipe = flags(model="res10", batch_size=128, warmup_epochs=1, clr="flatclr", quiet=True, **more)
        made = program.train(f"{place}/train", **program.NO_FILES, **recipe, train_images=images, epochs=epochs)
        evaluation = flags(checkpoint=made.checkpoint(epochs), precision="fp32", train_images=LABELLED, feature_cache="off")
        return program.evaluated(f"{place}/evaluation", **evaluation)


def difference_row(work, bf16, fp32, most_lost, note):
    """The mean over seeds is what a target can be held against: one training's differs from the next by chance."""
    differences = [a - b for a, b in zip(bf16, fp32)]
    ratio = statistics.mean(differences)
    target = {"target": f">= -{most_lost:g}", "met": ratio >= -most_lost} if most_lost else {}
    spread = {"ratio": ratio, "ratio_lowest": min(differences), "ratio_highest": max(differences)}
    medians = {"ours_median": statistics.mean(bf16), "theirs_median": statistics.mean(fp32)}
    return {**row(work, "in fp32", "%", bf16, fp32, note=note), **medians, **spread, **target}


# ---- distributed ----------------------------------------------------------------------------------------------------

IMAGES = 64
# Channels of every BatchNorm layer of res18: what its exchange of statistics sends.
CHANNELS = [64] * 5 + [128] * 5 + [256] * 5 + [512] * 5


def distributed(options):
    """Several processes: 1 and 2 ranks of one core each against PyTorch's DistributedDataParallel, and what is sent.

    res18 in float32, 64 images a rank, Gloo over the loopback interface; each rank is bound to a core of its own, with its
    loader. A rate is taken between the first step that counts and the last. The bytes are counted by the kernel on the
    loopback interface and compared with the formula; from the formula comes the table of what to expect of GPUs, which
    nobody has measured here.
    """
    import pytorch

    rounds, steps = (1, 4) if options.quick else (5, 12)
    if CORES < 2:
        raise Failed("two ranks need two cores")
    rows = []
    for ranks in (1, 2):
        say(f"{ranks} rank(s)")
        works = [lambda: our_ranks(ranks, False, steps), lambda: our_ranks(ranks, True, steps), lambda: their_ranks(ranks, steps)]
        plain, synced, peer = in_turns(rounds, *works)
        name, rates = f"res18 fp32, {ranks} rank(s) of one core, 64 images each", column(peer, "rate")
        against = "DistributedDataParallel, Gloo"
        rows.append(row(f"{name}, own BatchNorm statistics", against, "images/s", column(plain, "rate"), rates, (">=", 1.0)))
    against = "DistributedDataParallel, own statistics"
    rows.append(row(f"{name}, BatchNorm over all ranks", against, "images/s", column(synced, "rate"), rates))
    waits = column(synced, "share")
    rows.append(row("waiting for collectives, share of the time", None, "", waits, None, ("<=", 0.10), "share"))
    weights = sum(p.numel() for p in pytorch.Encoder("res18").parameters())
    formula = 2 * sent(*payload(weights, CHANNELS, IMAGES, 2), 2) / 2**20
    moved = column(synced, "bytes_a_step", 2**-20)
    rows.append(row("bytes on the wire a step, 2 ranks", "formula", "MiB", moved, [formula] * rounds))
    return rows


def bound(command, ranks):
    """The ranks of a job, each bound to a core of its own: what the first one said."""
    cores = sorted(os.sched_getaffinity(0))
    place = lambda rank: {"LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": ranks, "OMP_NUM_THREADS": 1}
    return program.ranks(command, ranks, place, lambda rank: os.sched_setaffinity(0, {cores[rank]}))


def loopback_bytes():
    names = (line.partition(":") for line in open("/proc/net/dev"))
    return next(int(numbers.split()[0]) for name, _, numbers in names if name.strip() == "lo")


def our_ranks(ranks, sync_bn, steps):
    """Three epochs of `steps` steps; the first one warms up."""
    with tempfile.TemporaryDirectory() as place:
        asked = flags(
            model="res18", batch_size=IMAGES * ranks, train_images=IMAGES * ranks * steps, epochs=3, precision="fp32",
            save_dir=place, workers=1, log_every=0, sync_bn=str(sync_bn).lower(),
        )  # fmt: skip
        before = loopback_bytes()
        bound(program.command("--verbose", **program.NO_FILES, **asked), ranks)
        moved = loopback_bytes() - before
        made = program.below(place)
        last, waits = made.lines("metrics.jsonl")[1:], [line for line in made.words() if "collectives:" in line]
    rate = IMAGES * ranks * steps * len(last) / sum(epoch["epoch_seconds"] for epoch in last)
    share = float(waits[-1].split("waited for ")[1].split("%")[0]) / 100 if waits else None
    # The weights that rank 0 sends at the start are sent once.
    return {"rate": rate, "bytes_a_step": moved / (3 * steps), "share": share}


def their_ranks(ranks, steps):
    said = bound(program.peer_command({"ranks": (steps, 2 * steps, 1)}, model="res18", batch=IMAGES, workers=1), ranks)
    result = next(json.loads(line) for line in said.splitlines() if line.startswith("{"))
    if "error" in result:
        raise Failed(f"DistributedDataParallel: {result['error']}")
    return {"rate": ranks * result["rates"][0]}


def payload(weights, channels, images, ranks, width=128):
    """Bytes that a rank gives to the collectives of a step, by kind: reduced, gathered."""
    # BatchNorm in double precision: mean and variance forward, two sums backward.
    reduced = 4 * weights + 4 * 2 * images * ranks * width + 4 + 8 * 4 * sum(channels)
    return reduced, 4 * 2 * images * (width + 5)


def sent(reduced, gathered, ranks):
    """Bytes that a rank sends in a step, with rings: 2 (W - 1) / W of what is reduced, W - 1 times what is gathered."""
    return 2 * (ranks - 1) / ranks * reduced + (ranks - 1) * gathered


def predictions():
    """Efficiency = t / (t + sent / bandwidth + messages x latency), nothing overlapped: see the README."""
    # Layers and channels of ResNet-50, and the images/s of one GPU that the table assumes.
    channels = [64] + 3 * [64, 64, 256] + 4 * [128, 128, 512] + 6 * [256, 256, 1024] + 3 * [512, 512, 2048]
    channels += [256, 512, 1024, 2048]
    weights, images, per_second, latency = 27_966_656, 128, 1000.0, 10e-6
    step, lines = images / per_second, []
    for gpus in (8, 64, 512):
        bytes_sent = sent(*payload(weights, channels, images, gpus), gpus)
        # Three exchanges a BatchNorm layer, eight more collectives: each takes a tree's depth of messages, twice.
        messages = (3 * len(channels) + 8) * 2 * (gpus - 1).bit_length()
        seconds = [bytes_sent / (gigabits * 1e9 / 8) + messages * latency for gigabits in (100, 400)]
        lines.append([gpus, *(f"{100 * step / (step + second):.0f}%" for second in seconds), f"{bytes_sent / 2**20:.0f} MiB"])
    return markdown(["GPUs", "100 Gbit/s", "400 Gbit/s", "sent a step and GPU"], lines)
