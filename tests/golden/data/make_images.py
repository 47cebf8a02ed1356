#!/usr/bin/env python3
"""Writes the image fixtures of tests/data.rs: small JPEG and PNG files of every
kind, and beside each, as NAME.expected.png, what Pillow's convert("RGB") reads.

Needs Pillow and numpy. The pictures are drawn here: gradients, shapes and a
little noise, so that chroma edges and smooth areas both occur.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent / "images"
WIDTH, HEIGHT = 67, 45  # no multiple of a block, so that edges are tested


def picture() -> Image.Image:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    rgb = np.stack([x * 255 / WIDTH, y * 255 / HEIGHT, 128 + 90 * np.sin(x / 7) * np.cos(y / 5)], -1)
    rgb += np.random.default_rng(7).normal(0, 4, rgb.shape)
    image = Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((8, 6, 34, 30), fill=(220, 40, 30))
    draw.polygon([(40, 38), (62, 40), (50, 10)], fill=(20, 60, 200))
    return image


def expect(name: str) -> None:
    path = HERE / name
    with Image.open(path) as image:
        image.convert("RGB").save(HERE / f"{path.name}.expected.png", optimize=True)


def main() -> None:
    HERE.mkdir(exist_ok=True)
    image = picture()

    def save(name: str, source: Image.Image = image, **options) -> None:
        source.save(HERE / name, **options)
        expect(name)

    save("444.jpg", quality=90, subsampling=0)
    save("422.jpg", quality=90, subsampling=1)
    save("420.jpg", quality=85, subsampling=2)
    save("progressive.jpeg", quality=80, progressive=True)
    save("restart.jpg", quality=75, restart_marker_blocks=2)
    save("rgb.jpg", quality=90, keep_rgb=True)
    save("grey.JPG", image.convert("L"), quality=85)
    cmyk = image.convert("CMYK")
    # Some black, which a plain conversion never makes.
    channels = list(cmyk.split())
    channels[3] = image.convert("L").point(lambda level: level // 3)
    cmyk = Image.merge("CMYK", channels)
    save("cmyk.jpg", cmyk, quality=90, format="JPEG")
    # The same bytes declared as YCCK: Adobe's marker says how the channels are meant.
    data = bytearray((HERE / "cmyk.jpg").read_bytes())
    marker = data.index(b"Adobe")
    data[marker + 11] = 2
    (HERE / "ycck.jpg").write_bytes(data)
    expect("ycck.jpg")
    # Stored on its side, with a note to turn it.
    exif = Image.Exif()
    exif[0x0112] = 6
    save("rotated.jpg", quality=90, exif=exif)

    save("rgb.png")
    save("palette.png", image.quantize(20))
    palette = image.quantize(20)
    save("palette_transparent.png", palette, transparency=3)
    save("two_bits.png", image.quantize(4), bits=2)
    save("one_bit.png", image.convert("1"))
    alpha = image.convert("RGBA")
    alpha.putalpha(image.convert("L"))
    save("rgba.png", alpha)
    save("grey_alpha.png", alpha.convert("LA"))
    save("grey.PNG", image.convert("L"))


if __name__ == "__main__":
    main()
