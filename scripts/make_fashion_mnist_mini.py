#!/usr/bin/env python3
"""Writes datasets/fashion_mnist_mini/: the images that are embedded in the binary.

The choice is fixed: the first 400 training images and the first 100 test images
of each of the ten classes, in the order of Fashion-MNIST's own files. The
result is four gzip-compressed IDX files, byte for byte the same on every run
with the same zlib.

Source: Fashion-MNIST, https://github.com/zalandoresearch/fashion-mnist, MIT
licence, copyright 2017 Zalando SE. Needs the standard library alone.

    scripts/make_fashion_mnist_mini.py /usr/share/datasets/fashion-mnist
"""

import gzip
import struct
import sys
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "datasets" / "fashion_mnist_mini"
SIDE = 28
CLASSES = 10


def read(path: Path, magic: int, header: int) -> bytes:
    data = gzip.decompress(path.read_bytes())
    found = struct.unpack(">I", data[:4])[0]
    if found != magic:
        sys.exit(f"{path}: magic number {found:#x}, expected {magic:#x}")
    return data[header:]


def write(path: Path, data: bytes) -> None:
    # No name and no time in the header, so that the bytes depend on the images alone.
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(data)


def shrink(source: Path, prefix: str, per_class: int) -> None:
    labels = read(source / f"{prefix}-labels-idx1-ubyte.gz", 0x801, 8)
    pixels = read(source / f"{prefix}-images-idx3-ubyte.gz", 0x803, 16)
    left = [per_class] * CLASSES
    chosen = []
    for index, label in enumerate(labels):
        if left[label]:
            left[label] -= 1
            chosen.append(index)
    if any(left):
        sys.exit(f"{source}: too few images of some class: {left} are missing")
    area = SIDE * SIDE
    images = b"".join(pixels[i * area : (i + 1) * area] for i in chosen)
    write(OUT / f"{prefix}-images-idx3-ubyte.gz", struct.pack(">IIII", 0x803, len(chosen), SIDE, SIDE) + images)
    write(OUT / f"{prefix}-labels-idx1-ubyte.gz", struct.pack(">II", 0x801, len(chosen)) + bytes(labels[i] for i in chosen))


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    OUT.mkdir(parents=True, exist_ok=True)
    shrink(Path(sys.argv[1]), "train", 400)
    shrink(Path(sys.argv[1]), "t10k", 100)


if __name__ == "__main__":
    main()
