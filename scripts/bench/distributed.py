"""Several processes: 1 and 2 ranks of one core each against PyTorch's DistributedDataParallel, and what is sent.

    scripts/bench.sh distributed [--quick] [--json FILE]

res18 in float32, 64 images a rank, Gloo over the loopback interface; each rank is bound to a core of its own, with its
loader. A rate is taken between the first step that counts and the last. The bytes are counted by the kernel on the
loopback interface and compared with the formula; from the formula comes the table of what to expect of GPUs, which
nobody has measured here.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import common
import upstream

IMAGES = 64
# Channels of every BatchNorm layer, by model: what its exchange of statistics sends.
CHANNELS = {"res18": [64] * 5 + [128] * 5 + [256] * 5 + [512] * 5}


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def loopback_bytes():
    for line in open("/proc/net/dev"):
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[0])
    sys.exit("bench: error: /proc/net/dev knows no loopback interface")


def start(command, rank, ranks, port, **options):
    environment = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(ranks),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    core = sorted(os.sched_getaffinity(0))[rank]
    bind = lambda: os.sched_setaffinity(0, {core})
    return subprocess.Popen(command, cwd=common.ROOT, env=environment, preexec_fn=bind, **options)


def finished(children, command):
    codes = [child.wait() for child in children]
    if any(codes):
        sys.exit(f"bench: error: {' '.join(map(str, command))} ended with status {codes}")


def ours(ranks, sync_bn, steps):
    """Three epochs of `steps` steps; the first one warms up."""
    home, dataset = upstream.fashion_home()
    with tempfile.TemporaryDirectory() as place:
        command = [
            common.binary(), f"--dataset-name={dataset}", f"--data={home.parent}", "--model=res18",
            f"--batch-size={IMAGES * ranks}", f"--train-images={IMAGES * ranks * steps}", "--epochs=3",
            "--precision=fp32", "--knn-every=0", "--save-every-n-epochs=1000", f"--save-dir={place}", "--device=cpu",
            "--workers=1", "--log-every=0", f"--sync-bn={str(sync_bn).lower()}", "--verbose",
        ]
        port, before = free_port(), loopback_bytes()
        children = [start(command, rank, ranks, port, stdout=subprocess.DEVNULL) for rank in range(ranks)]
        finished(children, command)
        moved = loopback_bytes() - before
        directory = next(Path(place).rglob("metrics.jsonl")).parent
        epochs = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        share = None
        for line in (directory / "training.log").read_text().splitlines():
            if "collectives:" in line:
                share = float(line.split("waited for ")[1].split("%")[0]) / 100
    last = epochs[1:]
    rate = IMAGES * ranks * steps * len(last) / sum(epoch["epoch_seconds"] for epoch in last)
    # The weights that rank 0 sends at the start are sent once.
    return {"rate": rate, "bytes_a_step": moved / (3 * steps), "share": share}


def theirs(ranks, steps):
    command = [sys.executable, str(common.HERE / "distributed_peer.py"), "res18", str(3 * steps), f"--images={IMAGES}"]
    port = free_port()
    children = [start(command, r, ranks, port, stdout=subprocess.PIPE if r == 0 else subprocess.DEVNULL, text=True)
                for r in range(ranks)]
    times = [json.loads(line)["time"] for line in children[0].stdout if line.startswith("{")]
    finished(children, command)
    return {"rate": IMAGES * ranks * 2 * steps / (times[-1] - times[steps - 1])}


def parameters(model):
    return sum(p.numel() for p in upstream.Encoder(model).parameters())


def payload(weights, channels, images, ranks, width=128, sync_bn=True):
    """Bytes that a rank gives to the collectives of a step, by kind: reduced, gathered."""
    reduced = 4 * weights + 4 * 2 * images * ranks * width + 4
    gathered = 4 * 2 * images * (width + 5)
    if sync_bn:
        # Double precision: mean and variance forward, two sums backward.
        reduced += 8 * 4 * sum(channels)
    return reduced, gathered


def sent(reduced, gathered, ranks):
    """Bytes that a rank sends in a step, with rings: 2 (W - 1) / W of what is reduced, W - 1 times what is gathered."""
    return 2 * (ranks - 1) / ranks * reduced + (ranks - 1) * gathered


def predictions():
    """Efficiency = t / (t + sent / bandwidth + messages x latency), nothing overlapped: see the README."""
    # Layers and channels of ResNet-50, and the images/s of one GPU that the table assumes.
    channels = [64] + 3 * [64, 64, 256] + 4 * [128, 128, 512] + 6 * [256, 256, 1024] + 3 * [512, 512, 2048]
    channels += [256, 512, 1024, 2048]
    weights, images, per_second, latency = 27_966_656, 128, 1000.0, 10e-6
    step = images / per_second
    print("\n| GPUs | 100 Gbit/s | 400 Gbit/s | sent a step and GPU |\n|---|---|---|---|")
    for gpus in (8, 64, 512):
        reduced, gathered = payload(weights, channels, images, gpus)
        bytes_sent = sent(reduced, gathered, gpus)
        # Three exchanges a BatchNorm layer, eight more collectives: each takes a tree's depth of messages, twice.
        messages = (3 * len(channels) + 8) * 2 * (gpus - 1).bit_length()
        cells = []
        for gigabits in (100, 400):
            seconds = bytes_sent / (gigabits * 1e9 / 8) + messages * latency
            cells.append(f"{100 * step / (step + seconds):.0f}%")
        print(f"| {gpus} | {cells[0]} | {cells[1]} | {bytes_sent / 2**20:.0f} MiB |")


def main():
    options = common.arguments(__doc__)
    rounds, steps = (1, 4) if options.quick else (5, 12)
    if common.CORES < 2:
        sys.exit("bench: error: two ranks need two cores")
    rows = []
    for ranks in (1, 2):
        common.say(f"{ranks} rank(s)")
        plain, synced, peer = common.in_turns(
            rounds, lambda: ours(ranks, False, steps), lambda: ours(ranks, True, steps), lambda: theirs(ranks, steps)
        )
        rate = lambda runs: [run["rate"] for run in runs]
        name = f"res18 fp32, {ranks} rank(s) of one core, 64 images each"
        rows.append(common.row(f"{name}, own BatchNorm statistics", "DistributedDataParallel, Gloo", "images/s",
                               rate(plain), rate(peer), (">=", 1.0)))
        if ranks > 1:
            rows.append(common.row(f"{name}, BatchNorm over all ranks", "DistributedDataParallel, own statistics",
                                   "images/s", rate(synced), rate(peer)))
            rows.append(common.row("waiting for collectives, share of the time", None, "",
                                   [run["share"] for run in synced], None, ("<=", 0.10), "share"))
            formula = 2 * sent(*payload(parameters("res18"), CHANNELS["res18"], IMAGES, 2), 2)
            rows.append(common.row("bytes on the wire a step, 2 ranks", "formula", "MiB",
                                   [run["bytes_a_step"] / 2**20 for run in synced], [formula / 2**20] * rounds))
    common.finish("distributed", rows, options)
    predictions()


main()
