"""What the program does on a GPU: correct against PyTorch first, then how fast.

    scripts/bench_gpu.sh [--device cuda:0] [--binary FILE] [--measure FILE] [--json FILE] [--smoke]

Images are made up (noise over gradients): 50,000 of CIFAR-10's shape, and 12,288 of 96 x 96 pixels that both sides crop and
enlarge to 224. Peers are gpu_peer.py's; each side is a process of its own, one after the other.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import common
import numpy as np
import runs

PEER = common.HERE / "gpu_peer.py"


def more(parser):
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu (default: cuda:0)")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: whether this script works, not how fast anything is")
    parser.add_argument("--skip-checks", action="store_true", help="only measure")


def made_up(count, side):
    """u8 [N, side, side, 3]"""
    noise = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    base = np.stack([x * 200 // side, y * 200 // side, (x // 4 + y // 4) % 2 * 150], -1)
    images = noise.integers(0, 56, (count, side, side, 3), dtype=np.uint8)
    images += base.astype(np.uint8)
    return images


def write_cifar(images, home):
    """CIFAR-10's binary files."""
    home = home / "cifar-10-batches-bin"
    home.mkdir()
    for number, part in enumerate(np.array_split(images, 5), 1):
        planes = part.transpose(0, 3, 1, 2).reshape(len(part), -1)
        labels = (np.arange(len(part)) % 10).astype(np.uint8)[:, None]
        np.concatenate([labels, planes], 1).tofile(home / f"data_batch_{number}.bin")


def write_stl(images, home):
    """STL-10's file of unlabelled images: planes, column by column."""
    home = home / "stl10_binary"
    home.mkdir()
    images.transpose(0, 3, 2, 1).tofile(home / "unlabeled_X.bin")


class Busy:
    """Utilisation of the GPU in percent as nvidia-smi tells it, four times a second, while `counts` is set."""

    def __init__(self, device):
        self.samples, self.counts = [], False
        index = device.partition(":")[2] or "0"
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "250", "-i", index]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.child.stdout:
            if self.counts and line.strip().isdigit():
                self.samples.append(float(line))

    def stop(self):
        self.child.terminate()
        self.child.wait()
        return self.samples


def ours(words, epochs, images, busy=None):
    """Images a second of every epoch but the first; they are read off the program's own files."""
    with tempfile.TemporaryDirectory() as place:
        command = [
            common.binary(), *words, f"--epochs={epochs}", f"--train-images={images}", "--engine=tensor",
            "--save-every-n-epochs=1000", "--knn-every=0", "--quiet", f"--save-dir={place}",
        ]  # fmt: skip

        def during(done):
            if busy:
                busy.counts = 1 <= done < epochs

        arrivals, _, _ = runs.epochs_of(command, place, during)
    batch = next(int(word.partition("=")[2]) for word in words if word.startswith("--batch-size="))
    seen = images // batch * batch
    return [seen / (b - a) for a, b in zip(arrivals, arrivals[1:])]


def theirs(manner, model, images, *words):
    command = [sys.executable, PEER, manner, model, f"--images={images}", *words]
    done = subprocess.run([str(word) for word in command], cwd=common.ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"bench: error: {' '.join(map(str, command))} ended with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])["rates"]


def pair(mine, yours):
    """Equally many of both."""
    count = min(len(mine), len(yours))
    return mine[-count:], yours[-count:]


def checks(options, place):
    common.say("checks against PyTorch")
    size = ["--model=res10", "--batch=8", "--steps=3"] if options.smoke else []
    command = [sys.executable, common.HERE / "gpu_check.py", f"--device={options.device}", f"--place={place}", *size]
    done = subprocess.run([str(word) for word in command], cwd=common.ROOT, stdout=subprocess.PIPE, text=True)
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for result in results:
        details = ", ".join(f"{key} {value:.6g}" for key, value in result.items() if key not in ("check", "holds"))
        print(f"{'holds ' if result['holds'] else 'FAILED'}  {result['check']}{': ' + details if details else ''}", flush=True)
    if done.returncode != 0 or len(results) != 5:
        sys.exit("bench: error: the checks did not come to their end; the message stands above")
    return results


def flags(options, place, dataset, model):
    """Those of the program that both shapes have."""
    return [f"--dataset-name={dataset}", f"--data={place}", f"--model={model}", f"--device={options.device}", "--precision=bf16"]


def cifar_rows(options, place, smoke):
    images, batch, epochs = (64, 8, 3) if smoke else (50_000, 512, 4)
    model = "res10" if smoke else "res18"
    pixels = made_up(images, 32)
    write_cifar(pixels, place)
    np.save(place / "cifar.npy", pixels)
    shape = flags(options, place, "cifar10", model)
    peer = ["--size=32", f"--device={options.device}", *(["--backend=eager"] if smoke else [])]
    steps = lambda warm, count, blocks: [f"--warm={warm}", f"--steps={count}", f"--blocks={blocks}"] if not smoke else ["--warm=1", "--steps=2", "--blocks=2"]
    of = lambda manner, size, *words: theirs(manner, model, place / "cifar.npy", f"--batch={size}", *peer, *words)

    common.say(f"{model}, batch {batch}, ours")
    busy = None if options.device == "cpu" else Busy(options.device)
    mine = ours([*shape, f"--batch-size={batch}"], epochs, images, busy)
    used = busy.stop() if busy else []
    work = f"{model}, 32 px, batch {batch}, bf16"
    rows = [common.row(work, None, "images/s", mine, None, None if smoke else (">=", 12_000))]
    for manner, against, target, count in [
        ("compiled", "PyTorch channels-last bf16 torch.compile, augmentation on the device", 1.0, steps(20, 60, 3)),
        ("upstream", "main.py's recipe", 8.0, steps(2, 10, 2)),
        ("faster", "main.py's faster version", 3.0, steps(3, 20, 2)),
    ]:
        common.say(f"{model}, batch {batch}, {manner}")
        a, b = pair(mine, of(manner, batch, *count))
        rows.append(common.row(work, against, "images/s", a, b, None if smoke else (">=", target)))
    if used:
        rows.append(common.row("device busy", None, "%", used, None, (">=", 95.0)))
    else:
        common.say("device busy: not measured, nvidia-smi said nothing" if busy else "device busy: not measured on a CPU")

    common.say(f"{model}, batch 32")
    small = 4 if smoke else 32
    mine_small = ours([*shape, f"--batch-size={small}"], 3, 32 if smoke else 12_800)
    a, b = pair(mine_small, of("eager", small, *steps(20, 100, 2)))
    rows.append(
        common.row(f"{model}, 32 px, batch {small}, bf16", "PyTorch eager", "images/s", a, b, None if smoke else (">=", 1.5))
    )
    rows += share_rows(options, smoke, "32", batch, mine)
    return rows


def share_rows(options, smoke, shape, batch, rates):
    """Seconds of a batch's augmentation alone, as a share of a step's."""
    if "FLATNCE_MEASURE" not in os.environ and not have_cargo():
        common.say("augmentation share: not measured, for want of benches/measure (--measure FILE)")
        return []
    common.say(f"augmentation alone, {shape} px")
    program = os.environ.get("FLATNCE_MEASURE") or common.bench_executable("measure")
    with common.Server([program, "tensors", shape, str(batch), options.device, "2" if smoke else "30"]) as served:
        served.ask()
        seconds = [served.ask()["seconds"] for _ in range(len(rates))]
    shares = [100 * alone * rate / batch for alone, rate in zip(seconds, rates)]
    target = None if smoke else ("<=", 8.0)
    note = "augmentation: views rendered alone, waited for, as a share of a training step's time"
    return [common.row(f"augmentation's share of a step, {shape} px", None, "%", shares, None, target, note=note)]


def have_cargo():
    try:
        return subprocess.run(["cargo", "--version"], capture_output=True).returncode == 0
    except OSError:
        return False


def imagenet_rows(options, place, smoke):
    images, batch, epochs = (16, 4, 3) if smoke else (12_288, 128, 4)
    model = "res10" if smoke else "res50"
    pixels = made_up(images, 96)
    write_stl(pixels, place)
    np.save(place / "stl.npy", pixels)
    words = flags(options, place, "stl10", model)
    words += ["--image-size=224", "--blur=true", "--data-on-device=yes", f"--batch-size={batch}"]
    common.say(f"{model}, 224 px, ours")
    mine = ours(words, epochs, images)
    common.say(f"{model}, 224 px, compiled")
    steps = ["--warm=1", "--steps=2", "--blocks=2", "--backend=eager"] if smoke else ["--warm=6", "--steps=15", "--blocks=3"]
    device = f"--device={options.device}"
    yours = theirs("compiled", model, place / "stl.npy", f"--batch={batch}", "--size=224", "--strength=1", "--blur", device, *steps)
    a, b = pair(mine, yours)
    peer = "PyTorch channels-last bf16 torch.compile, augmentation on the device"
    work = f"{model}, 224 px, batch {batch}, bf16, uint8 on the device"
    rows = [common.row(work, peer, "images/s", a, b, None if smoke else (">=", 1.0))]
    return rows + share_rows(options, smoke, "224", batch, mine)


def main():
    options = common.arguments(__doc__, more)
    if options.device != "cpu":
        import torch

        if not torch.cuda.is_available():
            sys.exit("bench: error: this PyTorch finds no GPU; --device cpu --smoke tries the script without one")
        common.say(torch.cuda.get_device_name(options.device))
    elif not options.smoke:
        sys.exit("bench: error: --device cpu goes with --smoke: the full sizes would take a CPU days")
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        results = [] if options.skip_checks else checks(options, place / "checks")
        rows = cifar_rows(options, place, options.smoke) + imagenet_rows(options, place, options.smoke)
    print()
    common.finish("gpu", rows, options)
    if options.smoke:
        print("\nThese sizes say only that the script works.")
    if not all(result["holds"] for result in results):
        sys.exit("bench: error: a check failed; the rates above are of a program that computes something else")


main()
