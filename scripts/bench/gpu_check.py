"""Whether the program computes on a device what PyTorch computes there: run by gpu.py before it measures.

    python scripts/bench/gpu_check.py --device D --place DIR [--model res18] [--batch N] [--steps N]

One line of JSON a check: its name, the numbers, what is allowed, and whether it holds. In float32 without TF32, from the
program's own initial weights and, exported by `flatnce preview`, its own views; the reference is PyTorch in float64 on the
same device, and float32 in PyTorch tells how far float32 may be from it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import common
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(common.ROOT / "scripts/study"))
import model as study

TEMPERATURE = 0.1
# Times PyTorch's own distance in float32 from itself in float64.
FACTOR = 4
DATA = ["--dataset-name=fashion_mnist_mini"]


def run(options, results, *words, engine="tensor"):
    """A training in a directory of its own: where its results are."""
    shutil.rmtree(results, ignore_errors=True)
    command = [
        common.binary(), *DATA, f"--model={options.model}", f"--batch-size={options.batch}", f"--engine={engine}",
        "--precision=fp32", f"--device={options.device}", "--knn-every=0", "--quiet", f"--save-dir={results}", *words,
    ]  # fmt: skip
    call(command)
    return next(results.rglob("config.yml")).parent


def call(command):
    done = subprocess.run([str(word) for word in command], cwd=common.ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bench: error: {' '.join(map(str, command))}\n{done.stderr}")


def weights(path):
    return torch.load(path, weights_only=True, map_location="cpu")["model_state_dict"]


def say(name, holds, **numbers):
    print(json.dumps({"check": name, "holds": bool(holds), **numbers}), flush=True)


def encoder_of(options, state):
    with torch.device("cpu"):
        encoder = study.Encoder(options.model, dict(state))
    return encoder.to(options.device).train()


def curve(options, state, views, lr, kind=torch.float32):
    """Losses of SGD steps on batches of views; and the gradients of the first."""
    encoder, losses, first = encoder_of(options, state).to(kind), [], None
    for batch in views:
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


def losses_of(directory):
    return [json.loads(line)["loss_infonce"] for line in (directory / "steps.jsonl").read_text().splitlines()]


def against_pytorch(options):
    lr = 1e-3
    sgd = ["--optimizer=sgd", "--momentum=0", "--weight-decay=0", "--scheduler=none", "--warmup-epochs=0"]
    few = [*sgd, f"--train-images={options.batch * options.steps}"]
    start = weights(run(options, options.place / "start", *few, f"--lr={lr}", "--epochs=0") / "checkpoint_0000.pth.tar")
    file = options.place / "views.safetensors"
    call([
        common.binary(), "preview", *DATA, f"--images={options.batch}", f"--batches={options.steps}", f"--views={file}",
        f"--out={options.place / 'views.png'}", f"--train-images={options.batch * options.steps}",
    ])  # fmt: skip
    directory = run(options, options.place / "epoch", *few, f"--lr={lr}", "--epochs=1")
    ours, views = losses_of(directory), load_file(file)["views"]
    theirs, _ = curve(options, start, views, lr)
    exact, _ = curve(options, start, views, lr, torch.float64)
    worst = lambda a, b: max(abs(x - y) for x, y in zip(a, b, strict=True))
    say("loss of the first step", abs(ours[0] - exact[0]) < 1e-4, ours=ours[0], pytorch=exact[0], allowed=1e-4)
    allowed = max(2e-3, FACTOR * worst(theirs, exact))
    difference = worst(ours, exact)
    say("losses of an epoch", difference <= allowed, steps=len(ours), worst_difference=difference, allowed=allowed, last=ours[-1])

    # An epoch of one step at rate 1: what the weights lose is the gradient.
    one = [*sgd, f"--train-images={options.batch}", "--lr=1", "--epochs=1"]
    moved = weights(run(options, options.place / "one", *one) / "checkpoint_0001.pth.tar")
    call([
        common.binary(), "preview", *DATA, f"--images={options.batch}", f"--views={file}",
        f"--out={options.place / 'views.png'}", f"--train-images={options.batch}",
    ])  # fmt: skip
    views = load_file(file)["views"]
    _, theirs = curve(options, start, views, 1.0)
    _, exact = curve(options, start, views, 1.0, torch.float64)
    joined = lambda tensors: torch.cat([tensors[name].reshape(-1).double() for name in exact])
    exact_joined = joined(exact)
    error = lambda tensors: ((joined(tensors) - exact_joined).norm() / exact_joined.norm()).item()
    ours = {name: start[name].double() - moved[name].double() for name in exact}
    allowed = max(1e-4, FACTOR * error(theirs))
    say("gradients of the first step", error(ours) <= allowed, relative_error=error(ours), allowed=allowed, pytorch=error(theirs))


def of_the_program(options):
    few = [f"--train-images={options.batch * 4}", "--lr=0.1", "--warmup-epochs=1", "--deterministic", "--save-every-n-epochs=1"]
    whole = run(options, options.place / "whole", *few, "--epochs=4")
    last = weights(whole / "checkpoint_0004.pth.tar")
    parts = options.place / "parts"
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()
    shutil.copy(whole / "checkpoint_0001.pth.tar", parts)
    call([common.binary(), f"--resume={parts}", f"--device={options.device}", "--deterministic", "--quiet"])
    same = lambda other: all(torch.equal(last[name], other[name]) for name in last)
    say("2 + 2 epochs are 4, to the bit (--deterministic)", same(weights(parts / "checkpoint_0004.pth.tar")))
    other = run(options, options.place / "cpu_engine", *few, "--epochs=4", engine="cpu")
    say("the engines train alike, to the bit (--deterministic)", same(weights(other / "checkpoint_0004.pth.tar")))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", required=True)
    parser.add_argument("--place", type=Path, required=True)
    parser.add_argument("--model", default="res18", choices=study.BLOCKS)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    against_pytorch(options)
    of_the_program(options)


if __name__ == "__main__":
    main()
