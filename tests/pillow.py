"""Pillow's side of tests/decode.rs.

    pillow.py expect DIR    beside every file of DIR that Pillow reads, FILE.rgb: format, width and height as text, a line
                            break, and the pixels of convert("RGB"); FILE.upright, the same after exif_transpose
    pillow.py make DIR      writes an image of every kind into DIR, and the above
"""

import random
import sys
import warnings
from pathlib import Path
from PIL import Image, ImageOps

warnings.simplefilter("ignore")


def write(path, name, image):
    image = image.convert("RGB")
    path.write_bytes(f"{name} {image.width} {image.height}\n".encode() + image.tobytes())


def expect(directory):
    for path in sorted(directory.iterdir()):
        if path.suffix in (".rgb", ".upright") or not path.is_file():
            continue
        try:
            with Image.open(path) as image:
                name = f"{image.format}/{image.mode}"
                write(path.with_name(path.name + ".rgb"), name, image)
            with Image.open(path) as image:
                write(path.with_name(path.name + ".upright"), name, ImageOps.exif_transpose(image))
        except Exception:
            continue


def picture(width, height):
    """Smooth colours, an edge and some noise, the same ones always."""
    rolls = random.Random(1)
    image = Image.new("RGB", (width, height))
    for y in range(height):
        for x in range(width):
            edge = 60 if x + 2 * y > 70 else 0
            color = (4 * x + edge, 3 * y + rolls.randrange(12), 2 * (x + y) + edge // 2)
            image.putpixel((x, y), tuple(min(255, value) for value in color))
    return image


def sixteen(width, height):
    image = Image.new("I;16", (width, height))
    image.putdata([(x * 1021 + y * 757) % 65536 for y in range(height) for x in range(width)])
    return image


def make(directory):
    whole = picture(61, 47)
    palette, clear = whole.quantize(200), whole.quantize(17)
    alpha = whole.copy()
    alpha.putalpha(whole.convert("L"))
    grey, bilevel = whole.convert("L"), whole.convert("1")
    modes = {"rgb": whole, "rgba": alpha, "grey": grey, "la": alpha.convert("LA"), "palette": palette, "bits": bilevel}
    modes |= {"few": whole.quantize(13), "two": whole.quantize(2), "cmyk": whole.convert("CMYK")}

    def save(name, image, **options):
        image.save(directory / name, **options)

    for mode, image in modes.items():
        if mode != "cmyk":
            save(f"{mode}.png", image)
        for packing in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
            save(f"{mode}-{packing}.tif", image, compression=packing)
        if mode in ("rgb", "grey", "palette", "bits", "few", "two", "rgba"):
            save(f"{mode}.bmp", image)
    save("group4.tif", bilevel, compression="group4")
    save("jpeg.tif", whole, compression="jpeg", quality=90)
    save("big.tif", whole, big_tiff=True)
    save("clear.png", clear, transparency=3)
    for name, image in (("rgb", whole), ("grey", grey), ("palette", palette), ("bits", bilevel)):
        save(f"{name}.gif", image)
    save("clear.gif", clear, transparency=5)
    save("moving.gif", palette, save_all=True, append_images=[whole.rotate(180).quantize(50)])
    save("rgb.ppm", whole)
    save("grey.pgm", grey)
    save("bits.pbm", bilevel)
    numbers = " ".join(str(value) for color in whole.getdata() for value in color)
    (directory / "text.ppm").write_text(f"P3\n# a note\n{whole.width} {whole.height}\n255\n{numbers}\n")
    wide = b"".join(((x * 919) % 65536).to_bytes(2, "big") for x in range(3 * 31 * 9))
    (directory / "wide.ppm").write_bytes(b"P6 31 9 65535\n" + wide)
    (directory / "few.pgm").write_bytes(b"P5 16 4 63\n" + bytes(range(64)))
    for name, options in (("lossless", {"lossless": True}), ("lossy", {"quality": 85}), ("poor", {"quality": 20})):
        for mode, image in (("rgb", whole), ("rgba", alpha)):
            # The colours under what is transparent are kept.
            save(f"{mode}-{name}.webp", image, exact=True, **options)
    save("moving.webp", whole, save_all=True, append_images=[whole.rotate(180)], lossless=True)
    for sampling in (0, 1, 2):
        save(f"sampling{sampling}.jpg", whole, quality=90, subsampling=sampling)
    save("progressive.jpg", whole, progressive=True)
    save("grey.jpg", grey)
    save("cmyk.jpg", modes["cmyk"], quality=95)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        for ending in ("jpg", "png", "webp", "tif"):
            options = {"lossless": True} if ending == "webp" else {}
            save(f"turned{orientation}.{ending}", whole, exif=exif, **options)
    expect(directory)


if __name__ == "__main__":
    {"make": make, "expect": expect}[sys.argv[1]](Path(sys.argv[2]))
