#!/usr/bin/env python3
"""Writes parquet/: image data sets of a few rows as Hugging Face's `datasets` writes them.

    python3 -m venv /tmp/arrow && /tmp/arrow/bin/pip install pyarrow==26.0.1 Pillow
    /tmp/arrow/bin/python tests/golden/data/make_parquet.py

Image number n of a set is a PNG of 4x3 pixels of the colour (20 n, 255 - n, 7).
"""

import io
import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

OUT = pathlib.Path(__file__).parent / "parquet"
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def png(number):
    out = io.BytesIO()
    Image.new("RGB", (4, 3), (20 * number % 256, 255 - number, 7)).save(out, "PNG")
    return out.getvalue()


def features(label, names):
    info = {"features": {"image": {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}}
    return {"huggingface": json.dumps({"info": info})}


def write(name, numbers, labels, label="label", names=("cat", "dog", "owl"), rows=2, **options):
    images = pa.array([{"bytes": png(n), "path": f"{n:03}.png"} for n in numbers], IMAGE)
    schema = pa.schema({"image": IMAGE, label: pa.int64()}, features(label, list(names)))
    path = OUT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table([images, pa.array(labels, pa.int64())], schema), path, row_group_size=rows, **options)


write("hub/data/train-00000-of-00002.parquet", range(3), [0, 1, 2])
write("hub/data/train-00001-of-00002.parquet", range(3, 5), [1, 0], compression="zstd")
write("hub/data/validation-00000-of-00001.parquet", range(5, 7), [2, 2], compression="gzip")
write("secret/test.parquet", range(3), [-1, -1, -1])
# A column of bytes alone, whole numbers of 32 bits, and no notes.
bare = {"image": pa.array([png(0), png(1)], pa.binary()), "label": pa.array([4, 0], pa.int32())}
(OUT / "bare").mkdir(exist_ok=True)
pq.write_table(pa.table(bare), OUT / "bare/0000.parquet", compression="lz4")
# An image whose bytes are elsewhere.
absent = pa.array([{"bytes": png(0), "path": "0.png"}, {"bytes": None, "path": "/data/1.png"}], IMAGE)
(OUT / "absent").mkdir(exist_ok=True)
pq.write_table(pa.table({"image": absent}), OUT / "absent/train.parquet", compression="none")
pq.write_table(pa.table({"text": ["a"]}), OUT / "text.parquet")
