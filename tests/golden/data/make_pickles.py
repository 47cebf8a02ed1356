#!/usr/bin/env python3
"""Writes pickles/: batches of two images as the Python version of CIFAR stores
them, in every protocol, and some that must be refused. Needs numpy.

Level of image i at plane c, row y, column x: (31 i + 67 c + 5 y + 3 x) mod 256.
"""

import os
import pickle
import struct
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent / "pickles"
i, c, y, x = np.ogrid[0:2, 0:3, 0:32, 0:32]
DATA = ((31 * i + 67 * c + 5 * y + 3 * x) % 256).astype(np.uint8).reshape(2, 3072)
BATCH = {b"batch_label": b"testing batch 1 of 1", b"labels": [3, 9], b"data": DATA, b"filenames": [b"a.png", b"b.png"]}
FINE = {"filenames": ["a.png", "b.png"], "batch_label": "x", "fine_labels": [42, 99], "coarse_labels": [1, 2], "data": DATA}


def python2(batch: dict) -> bytes:
    """Protocol 2 as Python 2 wrote it, with byte strings: the form of the published files."""

    def text(value: bytes) -> bytes:
        short = len(value) < 256
        return (b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))) + value

    def item(value) -> bytes:
        if isinstance(value, bytes):
            return text(value)
        if isinstance(value, int):
            return b"K" + bytes([value])
        if isinstance(value, list):
            return b"]q\x09(" + b"".join(map(item, value)) + b"e"
        empty = b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03"
        dtype = b"cnumpy\ndtype\nq\x04U\x02u1K\x00K\x01\x87Rq\x05(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        return empty + b"(K\x01M" + struct.pack("<H", value.shape[0]) + b"M\x00\x0c\x86" + dtype + b"\x89" + text(value.tobytes()) + b"tb"

    return b"\x80\x02}q\x00(" + b"".join(text(key) + item(value) for key, value in batch.items()) + b"u."


class Hostile:
    def __reduce__(self):
        return os.system, ("touch executed",)


def main() -> None:
    HERE.mkdir(exist_ok=True)

    def write(name: str, data: bytes) -> None:
        (HERE / name).write_bytes(data)

    write("python2", python2(BATCH))
    for protocol in range(5):
        write(f"protocol{protocol}", pickle.dumps(BATCH, protocol))
    write("fine", pickle.dumps(FINE, 2))
    write("column_major", pickle.dumps({**BATCH, b"data": np.asfortranarray(DATA)}, 2))
    write("bad_type", pickle.dumps({**BATCH, b"data": DATA[:, :64].astype(np.int16)}, 2))
    write("bad_shape", pickle.dumps({**BATCH, b"data": DATA[:, :64]}, 2))
    write("bad_label", pickle.dumps({**BATCH, b"labels": [3, 10]}, 2))
    write("bad_call", pickle.dumps({**BATCH, b"data": Hostile()}, 2))


if __name__ == "__main__":
    main()
