"""Contrastive pre-training in PyTorch on a device, in several manners: the peers of gpu.py.

    python scripts/bench/gpu_peer.py compiled|eager|upstream|faster MODEL --images FILE --size N --batch N
        --warm N --steps N --blocks N --device D [--strength S] [--blur] [--backend inductor]

Prints one line of JSON: images a second of each of `--blocks` blocks of `--steps` steps, after `--warm` that do not count.

compiled  channels-last, bf16 autocast, torch.compile of encoder and objective, of the augmentation too; uint8 images on
          the device, each view with its own crop, factors and sigma, one order of the colour operations for all (which
          spares what each view's own order costs)
eager     the same without torch.compile
upstream  main.py's recipe: float32, PIL images in worker processes, the objective through masks, LARS as a loop
faster    main.py's faster version: the same on tensors that were augmented once, before the first step
"""

import argparse
import json
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
import upstream


def uniform(count, low, high, device):
    return torch.rand(count, device=device) * (high - low) + low


def crops(images, size):
    """A random resized crop and flip of each image: float [B, 3, size, size] from u8 [B, 3, H, W]."""
    count, device = len(images), images.device
    area = uniform(count, 0.08, 1.0, device)
    ratio = torch.exp(uniform(count, float(np.log(3 / 4)), float(np.log(4 / 3)), device))
    width, height = torch.sqrt(area * ratio).clamp(max=1), torch.sqrt(area / ratio).clamp(max=1)
    x = uniform(count, -1, 1, device) * (1 - width)
    y = uniform(count, -1, 1, device) * (1 - height)
    width = torch.where(torch.rand(count, device=device) < 0.5, -width, width)
    zero = torch.zeros_like(x)
    theta = torch.stack([torch.stack([width, zero, x], 1), torch.stack([zero, height, y], 1)], 1)
    grid = F.affine_grid(theta, (count, 3, size, size), align_corners=False)
    return F.grid_sample(images.float() / 255, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def grey_of(x):
    return 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:3]


def rotate_hue(x, turns):
    """Through HSV."""
    high, low = x.amax(1), x.amin(1)
    spread = (high - low).clamp(min=1e-8)
    r, g, b = x.unbind(1)
    hue = torch.where(high == r, (g - b) / spread, torch.where(high == g, 2 + (b - r) / spread, 4 + (r - g) / spread))
    hue = (hue / 6 + turns.view(-1, 1, 1)) % 1
    saturation = (high - low) / high.clamp(min=1e-8)

    def channel(offset):
        k = (offset + hue * 6) % 6
        return high - high * saturation * torch.minimum(k, 4 - k).clamp(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], 1)


def jittered(x, strength):
    count, device = len(x), x.device
    factor = lambda: uniform(count, max(0, 1 - 0.8 * strength), 1 + 0.8 * strength, device).view(-1, 1, 1, 1)
    out = (x * factor()).clamp(0, 1)
    mean = grey_of(out).mean((1, 2, 3), keepdim=True)
    out = (mean + factor() * (out - mean)).clamp(0, 1)
    grey = grey_of(out)
    out = (grey + factor() * (out - grey)).clamp(0, 1)
    out = rotate_hue(out, uniform(count, -0.2 * strength, 0.2 * strength, device))
    return torch.where(torch.rand(count, 1, 1, 1, device=device) < 0.8, out, x)


def blurred(x, kernel):
    count, device, size = len(x), x.device, x.shape[-1]
    sigma = uniform(count, 0.1, 2.0, device).view(-1, 1)
    offsets = torch.arange(kernel, device=device) - kernel // 2
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(3, 0)  # [3B, kernel]
    pad = kernel // 2
    planes = F.pad(x.reshape(1, count * 3, size, size), (pad, pad, pad, pad), mode="reflect")
    planes = F.conv2d(planes, weights[:, None, None, :], groups=count * 3)
    planes = F.conv2d(planes, weights[:, None, :, None], groups=count * 3)
    return torch.where(torch.rand(count, 1, 1, 1, device=device) < 0.5, planes.view_as(x), x)


def views(images, size, strength, blur):
    """[2B, 3, size, size] of u8 images [B, 3, H, W]."""
    x = crops(images.repeat(2, 1, 1, 1), size)
    if strength:
        x = jittered(x, strength)
    x = torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.2, grey_of(x).expand_as(x), x)
    if blur:
        x = blurred(x, max(3, size // 10 | 1))
    return x.contiguous(memory_format=torch.channels_last)


def tuned(options, images, compiles):
    """A function that takes one step."""
    device = options.device
    encoder = upstream.Encoder(options.model, small=options.size < 128).to(device).train()
    encoder = encoder.to(memory_format=torch.channels_last)
    optimiser = upstream.ListLars(encoder.parameters(), lr=1e-4)
    stored = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).contiguous()

    def objective(batch):
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            projected = encoder(batch)
        return upstream.lean_loss(projected)

    augment = lambda chosen: views(chosen, options.size, options.strength, options.blur)
    if compiles:
        objective = torch.compile(objective, backend=options.backend)
        augment = torch.compile(augment, backend=options.backend)
    order, at = None, 0

    def step():
        nonlocal order, at
        if order is None or at + options.batch > len(order):
            order, at = torch.randperm(len(stored), device=device), 0
        with torch.no_grad():
            batch = augment(stored[order[at : at + options.batch]])
        at += options.batch
        loss = objective(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def recipe(options, images, faster):
    """main.py's step."""
    device = options.device
    encoder = upstream.Encoder(options.model, small=options.size < 128).to(device).train()
    optimiser = upstream.LoopLars(encoder.parameters(), lr=1e-4)
    if faster:
        ready = []
        for first in range(0, len(images), 128):
            chunk = torch.from_numpy(images[first : first + 128]).permute(0, 3, 1, 2).to(device)
            ready.append(views(chunk, options.size, options.strength, options.blur).cpu().unflatten(0, (2, -1)))
        first, second = (torch.cat([pair[view] for pair in ready]) for view in (0, 1))
        pairs = torch.utils.data.TensorDataset(first, second)
        batches = torch.utils.data.DataLoader(pairs, batch_size=options.batch, drop_last=True)
    else:
        batches = upstream.loader(images, options.batch, options.workers, stay=False)
    under_way = iter(batches)

    def step():
        nonlocal under_way
        try:
            pair = next(under_way)
        except StopIteration:
            under_way = iter(batches)
            pair = next(under_way)
        loss = upstream.masked_loss(encoder(torch.cat(pair, 0).to(device)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manner", choices=["compiled", "eager", "upstream", "faster"])
    parser.add_argument("model", choices=upstream.BLOCKS)
    parser.add_argument("--images", required=True, help="npy file, u8 [N, H, W, 3]")
    for name in ("size", "batch", "warm", "steps", "blocks"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--strength", type=float, default=0.5)
    parser.add_argument("--blur", action="store_true")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    images = np.load(options.images)
    if options.manner in ("compiled", "eager"):
        step = tuned(options, images, options.manner == "compiled")
    else:
        step = recipe(options, images, options.manner == "faster")
    wait = torch.cuda.synchronize if torch.device(options.device).type == "cuda" else lambda: None
    for _ in range(options.warm):
        step()
    rates = []
    for _ in range(options.blocks):
        wait()
        begun = time.perf_counter()
        for _ in range(options.steps):
            step()
        wait()
        rates.append(options.steps * options.batch / (time.perf_counter() - begun))
    print(json.dumps({"rates": rates}))


if __name__ == "__main__":
    main()
