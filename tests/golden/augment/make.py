"""Makes the fixtures of tests/augment.rs with torchvision and Pillow.

    python tests/golden/augment/make.py

Writes beside itself:
  cases.json    parameters, sizes and checksums; places are byte offsets in pixels.bin
  pixels.bin    source images and expected outputs, [height, width, 3] u8
  photo.jpg     a photograph of ImageNet's usual size, for benches/augment.rs
  moments.json  moments of torchvision's own random parameters

Made with torchvision 0.26, Pillow 13.0 and scikit-image's bundled photographs.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import skimage.data
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as F
from PIL import Image

HERE = Path(__file__).parent
FILTERS = {"bilinear": T.InterpolationMode.BILINEAR, "bicubic": T.InterpolationMode.BICUBIC}
JITTER = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
}

pixels = bytearray()


def stored(image):
    """Appends an image to pixels.bin and says where it is."""
    array = np.asarray(image.convert("RGB"))
    place = {"offset": len(pixels), "width": array.shape[1], "height": array.shape[0]}
    pixels.extend(array.tobytes())
    return place


def sources():
    noise = np.random.default_rng(7).integers(0, 256, (37, 41, 3), dtype=np.uint8)
    noise[10:20, 10:30] = noise[10:20, 10:30] // 128 * 255  # saturated colours: every clipping branch
    grey = np.asarray(Image.fromarray(skimage.data.camera()).resize((28, 28)))
    grey = np.pad(grey, 2)[..., None].repeat(3, -1)  # like Fashion-MNIST: black border, equal channels
    return {
        "photo": Image.fromarray(skimage.data.chelsea()[60:195, 100:280]).resize((60, 45)),
        "small": Image.fromarray(skimage.data.astronaut()[0:256, 128:384]).resize((32, 32)),
        "noise": Image.fromarray(noise),
        "grey": Image.fromarray(grey),
    }


def render(image, size, crop, flip=False, jitter=None, grayscale=False, sigma=None, kernel=3, filter="bilinear"):
    top, left, height, width = crop
    image = F.resized_crop(image, top, left, height, width, [size, size], FILTERS[filter])
    if flip:
        image = F.hflip(image)
    if jitter:
        for op in jitter["order"]:
            image = JITTER[op](image, jitter[op])
    if grayscale:
        image = F.rgb_to_grayscale(image, 3)
    if sigma:
        image = F.gaussian_blur(image, kernel, [sigma, sigma])
    return image


def view_cases(images):
    """Whole pipelines: fixed corners first, then random parameters."""
    f32 = lambda x: float(np.float32(x))
    crops = [
        ("photo", 32, [0, 0, 45, 60]), ("photo", 32, [5, 11, 20, 17]), ("photo", 24, [44, 59, 1, 1]),
        ("photo", 40, [0, 3, 45, 2]), ("noise", 16, [1, 2, 36, 39]), ("noise", 33, [10, 10, 10, 20]),
        ("small", 32, [0, 0, 32, 32]), ("small", 32, [3, 4, 15, 12]), ("grey", 32, [2, 5, 25, 21]),
    ]
    cases = [{"image": i, "size": s, "crop": c} for i, s, c in crops]
    cases += [{"image": i, "size": s, "crop": c, "flip": True} for i, s, c in crops[:3]]
    for sigma, kernel in [(0.1, 3), (0.7, 3), (2.0, 3), (2.0, 23), (1.3, 9)]:
        for image in ["small", "noise"]:
            cases.append({"image": image, "size": 32, "crop": [0, 0, 32, 32], "sigma": f32(sigma), "kernel": kernel})
    rng = np.random.default_rng(11)
    ops = list(JITTER)
    for n in range(24):
        name = ["photo", "small", "noise", "grey"][n % 4]
        w, h = images[name].size
        ch, cw = int(rng.integers(4, h + 1)), int(rng.integers(4, w + 1))
        crop = [int(rng.integers(0, h - ch + 1)), int(rng.integers(0, w - cw + 1)), ch, cw]
        factors = {op: f32(rng.uniform(0.2, 1.8)) for op in ops[:3]} | {"hue": f32(rng.uniform(-0.2, 0.2))}
        jitter = {"order": [ops[i] for i in rng.permutation(4)]} | factors
        case = {"image": name, "size": [32, 24][n % 2], "crop": crop, "flip": bool(rng.random() < 0.5), "jitter": jitter}
        case |= {"grayscale": n % 5 == 0, "sigma": f32(rng.uniform(0.1, 2.0)) if n % 3 == 0 else None, "kernel": 3}
        cases.append(case)
    for case in cases:
        arguments = {k: v for k, v in case.items() if k != "image"}
        case["expected"] = stored(render(images[case["image"]], **arguments))
    return cases


def eval_cases(images):
    cases = []
    for name, resize, crop, filter in [
        ("photo", 36, 32, "bicubic"), ("photo", 21, 20, "bicubic"), ("photo", 64, 56, "bicubic"),
        ("noise", 32, 32, "bicubic"), ("noise", 24, 17, "bilinear"), ("photo", 24, 24, "bilinear"),
    ]:
        image = F.center_crop(F.resize(images[name], resize, FILTERS[filter]), crop)
        case = {"image": name, "resize": resize, "crop": crop, "filter": filter, "expected": stored(image)}
        cases.append(case)
    return cases


def checksums():
    """CRC-32 of exhaustive outputs."""
    levels = np.arange(256, dtype=np.uint8)
    r, g, b = np.meshgrid(levels, levels, levels, indexing="ij")
    colors = Image.fromarray(np.stack([r, g, b], -1).reshape(4096, 4096, 3))
    crc = lambda image: zlib.crc32(np.ascontiguousarray(np.asarray(image)).tobytes())
    factors = [0.0, 0.2, 0.6, 0.999, 1.0, 1.3, 1.8]
    f32 = lambda x: float(np.float32(x))
    column = Image.fromarray(levels.reshape(1, 256))
    means = [Image.new("L", (256, 1), mean) for mean in range(256)]
    blends = lambda factor: b"".join(Image.blend(mean, column, factor).tobytes() for mean in means)
    return {
        # All 2^24 colours, red slowest.
        "grayscale": crc(colors.convert("L")),
        "hue": [[f32(turns), crc(F.adjust_hue(colors, f32(turns)))] for turns in [0.0, 0.1, -0.2]],
        "saturation": [[f32(factor), crc(F.adjust_saturation(colors, f32(factor)))] for factor in [0.3, 1.7]],
        # All levels; for contrast [mean, level].
        "brightness": [[f32(x), crc(Image.blend(means[0], column, f32(x)))] for x in factors],
        "contrast": [[f32(x), zlib.crc32(blends(f32(x)))] for x in factors],
        # [width, height, size, checksum]
        "shapes": shapes(),
    }


def shapes():
    rng = np.random.default_rng(13)
    result = []
    for _ in range(600):
        width, height, size = (int(side) for side in rng.integers(1, 100, 3))
        mixed = (np.arange(width * height * 3, dtype=np.uint32) * np.uint32(2654435761)) >> 24
        image = Image.fromarray(mixed.astype(np.uint8).reshape(height, width, 3))
        result.append([width, height, size, zlib.crc32(image.resize((size, size), Image.BILINEAR).tobytes())])
    return result


def moments():
    torch.manual_seed(3)
    draws = 200_000

    def summary(values):
        values = np.asarray(values, dtype=np.float64)
        return {"mean": values.mean(), "variance": values.var(), "fourth": ((values - values.mean()) ** 4).mean()}

    crops = []
    for width, height, scale, ratio in [
        (32, 32, (0.08, 1.0), (3 / 4, 4 / 3)), (500, 375, (0.08, 1.0), (3 / 4, 4 / 3)),
        (64, 20, (0.2, 1.0), (3 / 4, 4 / 3)), (10, 70, (0.9, 1.0), (3 / 4, 4 / 3)), (9, 31, (0.5, 1.0), (0.5, 2.0)),
    ]:
        image = Image.new("RGB", (width, height))
        boxes = [T.RandomResizedCrop.get_params(image, scale, ratio) for _ in range(draws)]
        top, left, h, w = (np.array(side, dtype=np.float64) for side in zip(*boxes))
        crops.append({
            "width": width, "height": height, "scale": scale, "ratio": ratio,
            "area": summary(h * w / (width * height)), "log_ratio": summary(np.log(w / h)),
            "top": summary(top), "left": summary(left), "box_height": summary(h), "box_width": summary(w),
            "center_times_area": summary((left + w / 2) / width * (h * w) / (width * height)),
        })
    jitters = []
    for strength in [0.5, 1.0, 1.5]:
        jitter = T.ColorJitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
        drawn = [jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) for _ in range(draws)]
        order = torch.stack([d[0] for d in drawn]).numpy()
        jitters.append({"strength": strength} | {
            name: summary([d[i + 1] for d in drawn]) for i, name in enumerate(JITTER)
        } | {"place_of_op": [[float((order[:, place] == op).mean()) for place in range(4)] for op in range(4)]})
    sigma = summary([T.GaussianBlur.get_params(0.1, 2.0) for _ in range(draws)])
    return {"crops": crops, "jitters": jitters, "sigma": sigma}


def compact(table):
    """JSON with a line for each entry of the second level."""
    def block(value):
        if not isinstance(value, (dict, list)):
            return json.dumps(value)
        named = isinstance(value, dict)
        lines = [(json.dumps(k) + ": " + json.dumps(v)) for k, v in value.items()] if named else map(json.dumps, value)
        return "{["[not named] + "\n  " + ",\n  ".join(lines) + "\n " + "}]"[not named]
    return "{\n " + ",\n ".join(json.dumps(key) + ": " + block(value) for key, value in table.items()) + "\n}\n"


def main():
    images = sources()
    cases = {
        "images": {name: stored(image) for name, image in images.items()},
        "views": view_cases(images),
        "evaluations": eval_cases(images),
        "checksums": checksums(),
    }
    (HERE / "cases.json").write_text(compact(cases))
    (HERE / "pixels.bin").write_bytes(pixels)
    photo = Image.fromarray(skimage.data.chelsea()).resize((500, 333), Image.BICUBIC)
    photo.save(HERE / "photo.jpg", quality=90)
    (HERE / "moments.json").write_text(compact(moments()))


main()
