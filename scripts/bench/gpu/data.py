"""Made-up images (noise over gradients) in the forms of CIFAR-10, STL-10 and a directory of JPEG files, and the flags for them.

50,000 of 32 pixels; 6,144 of 96 pixels, which both sides crop and enlarge to 224; 1,024 JPEG files of 500 x 375 under four
names each, so that an epoch is long enough to time.
"""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from program import CORES

CLASSES, NAMES = 8, 4


class Sizes:
    """Of the two shapes that are timed: `small` is 32 pixels, `large` 224."""

    def __init__(self, options):
        smoke = options.smoke
        self.small, self.batch, self.small_batch = ("res10", 8, 4) if smoke else ("res18", 512, 32)
        self.images, self.small_images = (16, 8) if smoke else (50_000, 12_800)
        self.large, self.large_batch, self.file_batch = ("res10", 4, 4) if smoke else ("res50", 128, 256)
        self.large_images, self.files = (8, 8) if smoke else (6_144, 1_024)
        self.large_side = 32 if smoke else 224
        self.name = f"{self.small}, 32 px, batch {self.batch}, bf16"
        self.small_name = f"{self.small}, 32 px, batch {self.small_batch}, bf16"
        self.large_name = f"{self.large}, {self.large_side} px, batch {self.large_batch}, bf16, uint8 on the device"


def made_up(count, height, width):
    """u8 [N, height, width, 3]: each a part of one field of noise over a gradient, which costs no random number an image."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    base = np.stack([x * 200 // width, y * 200 // height, (x // 4 + y // 4) % 2 * 150], -1).astype(np.uint8)
    noise = random.integers(0, 56, (2 * height, 2 * width, 3), dtype=np.uint8)
    tops, lefts = random.integers(0, height, count), random.integers(0, width, count)
    images = np.empty((count, height, width, 3), np.uint8)
    for image, top, left in zip(images, tops, lefts):
        np.add(base, noise[top : top + height, left : left + width], out=image)
    return images


def write_cifar(images, home):
    """CIFAR-10's binary files."""
    home.mkdir()
    for number, part in enumerate(np.array_split(images, 5), 1):
        planes = part.transpose(0, 3, 1, 2).reshape(len(part), -1)
        labels = (np.arange(len(part)) % 10).astype(np.uint8)[:, None]
        np.concatenate([labels, planes], 1).tofile(home / f"data_batch_{number}.bin")


def write_stl(images, home):
    """STL-10's file of unlabelled images: planes, column by column."""
    home.mkdir()
    images.transpose(0, 3, 2, 1).tofile(home / "unlabeled_X.bin")


def write_jpegs(count, home):
    """Files in directories of classes; the other names of a file are hard links."""
    from PIL import Image

    images = made_up(count, 375, 500)
    for number in range(CLASSES):
        (home / f"class{number}").mkdir(parents=True)

    def write(number):
        first, *others = (home / f"class{number % CLASSES}" / f"{number}_{name}.jpg" for name in range(NAMES))
        Image.fromarray(images[number]).save(first, quality=90)
        for other in others:
            os.link(first, other)

    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(write, range(count)))


def home(options):
    return options.place / "made_up"


def data(options, found):
    """Each whole set appears at once, under its own name, last. What an earlier call has made whole is used again."""
    size, at = Sizes(options), home(options)
    whole, these = at / "whole", json.dumps(vars(size))
    if whole.exists() and whole.read_text() == these:
        return
    shutil.rmtree(at, ignore_errors=True)
    at.mkdir()
    for name, count, side, write, files in (
        ("cifar", size.images, 32, write_cifar, "cifar-10-batches-bin"),
        ("stl", size.large_images, 96, write_stl, "stl10_binary"),
    ):
        pixels = made_up(count, side, side)
        write(pixels, at / files)
        np.save(at / f"{name}.part.npy", pixels)
        (at / f"{name}.part.npy").rename(at / f"{name}.npy")
    write_jpegs(size.files, at / "jpeg")
    whole.write_text(these)


# ---- the program's flags for them -----------------------------------------------------------------------------------


def flags(options, batch, **more):
    return {"device": options.device, "precision": "bf16", "batch_size": batch, "engine": "tensor", **more}


def cifar(options, batch):
    return flags(options, batch, dataset_name="cifar10", data=home(options), model=Sizes(options).small)


def large(options, batch, **more):
    return flags(options, batch, model=Sizes(options).large, image_size=Sizes(options).large_side, **more)


def stl(options, batch):
    return large(options, batch, dataset_name="stl10", data=home(options), blur="true", data_on_device="yes")


def jpeg(options, batch):
    return large(options, batch, dataset_name="folder", data=home(options) / "jpeg")
