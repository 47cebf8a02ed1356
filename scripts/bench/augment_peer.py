"""Views per second of torchvision's augmentation on one thread: the peers of benches/augment.rs.

    python scripts/bench/augment_peer.py [--seconds 3] [--only NAME] [--json]

The recipe is the paper's (random resized crop, flip, colour jitter, greyscale,
for ImageNet blur, then a float tensor). `pil` runs torchvision's transforms on
PIL images; `v2` runs torchvision.transforms.v2 on uint8 tensors, two views an
image, as its documentation advises. Images are those of benches/augment.rs in
kind: colour gradients, edges and noise.
"""

import argparse
import io
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torchvision.transforms as T
from PIL import Image
from torchvision.io import decode_jpeg
from torchvision.transforms import v2

torch.set_num_threads(1)


def picture(width, height, seed, grey):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    base = np.stack([x * 255 // width, y * 255 // height, (x // 8 + y // 8) % 2 * 160], -1)
    levels = np.minimum(base + rng.integers(0, 32, base.shape), 255).astype(np.uint8)
    return levels[..., :1].repeat(3, -1) if grey else levels


def recipe(lib, size, strength, blur):
    """The same list in either library; they share the names."""
    steps = [
        lib.RandomResizedCrop(size, antialias=True),
        lib.RandomHorizontalFlip(),
        lib.RandomApply([lib.ColorJitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)], p=0.8),
        lib.RandomGrayscale(p=0.2),
    ]
    if blur:
        steps.append(lib.RandomApply([lib.GaussianBlur(int(0.1 * size) | 1)], p=0.5))
    return steps + ([v2.ToDtype(torch.float32, scale=True)] if lib is v2 else [T.ToTensor()])


CASES = {
    "cifar10 32 px": (32, 32, 32, 0.5, False, False),
    "fashion_mnist 32 px": (32, 32, 32, 0.5, False, True),
    "imagenet 224 px of 500 x 375": (500, 375, 224, 1.0, True, False),
}


def views_per_second(transform, images, seconds):
    for image in images[:4]:
        transform(image)
    views, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        for image in images:
            transform(image)
            transform(image)
        views += 2 * len(images)
    return views / elapsed


def images_per_second(transform, decode, seconds):
    """Decode once, two views."""
    transform(decode())
    images, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        image = decode()
        transform(image)
        transform(image)
        images += 1
    return images / elapsed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each measurement (default 3)")
    parser.add_argument("--only", help="measure the cases whose name contains this")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    rates = {}
    for name, (width, height, size, strength, blur, grey) in CASES.items():
        if arguments.only and arguments.only not in name:
            continue
        arrays = [picture(width, height, seed, grey) for seed in range(16)]
        torch.manual_seed(0)
        pil = T.Compose(recipe(T, size, strength, blur))
        tensor = v2.Compose(recipe(v2, size, strength, blur))
        rates[name] = {
            "pil": views_per_second(pil, [Image.fromarray(array) for array in arrays], arguments.seconds),
            "v2": views_per_second(
                tensor, [torch.from_numpy(array).permute(2, 0, 1).contiguous() for array in arrays], arguments.seconds
            ),
        }
        if not arguments.json:
            print(f"{name}: PIL {rates[name]['pil']:,.0f} views/s, v2 {rates[name]['v2']:,.0f} views/s", flush=True)
    name = "jpeg 500 x 333, 224 px"
    if not arguments.only or arguments.only in name:
        jpeg = (Path(__file__).parents[2] / "tests/golden/augment/photo.jpg").read_bytes()
        pil, tensor = T.Compose(recipe(T, 224, 1.0, True)), v2.Compose(recipe(v2, 224, 1.0, True))
        decode_pil = lambda: Image.open(io.BytesIO(jpeg)).convert("RGB")
        # torchvision's own decoder, straight to a tensor.
        buffer = torch.frombuffer(bytearray(jpeg), dtype=torch.uint8)
        decode_tensor = lambda: decode_jpeg(buffer)
        rates[name] = {
            "pil": images_per_second(pil, decode_pil, arguments.seconds),
            "v2": images_per_second(tensor, decode_tensor, arguments.seconds),
        }
        if not arguments.json:
            print(f"{name}: PIL {rates[name]['pil']:,.1f} images/s, v2 {rates[name]['v2']:,.1f} images/s")
    if arguments.json:
        print(json.dumps(rates))


main()
