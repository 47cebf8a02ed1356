"""What bench.sh measures of the program's pieces: parts kernels, augment, index, shards and save."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import program
from common import column, in_turns, measure, peer, row, say
from program import Failed


# ---- kernels --------------------------------------------------------------------------------------------------------


def kernels(options):
    """The loss, forward and backward, and a step of the optimiser, against upstream's way in PyTorch."""
    return loss_rows(2 if options.quick else 9) + [optimiser_row(3 if options.quick else 15)]


def loss_rows(rounds):
    views, dim = 8192, 128
    say(f"loss of {views} views")
    with measure("loss", views, dim) as ours, peer("loss", views, dim) as theirs:
        ours.ask()
        theirs.ask()
        a, b = in_turns(rounds, ours.ask, theirs.ask)
    if abs(a[0]["value"] - b[0]["value"]) > 0.05:
        raise Failed(f"the losses differ: {a[0]['value']} and {b[0]['value']}")
    work, against = "loss forward and backward, 2B = 8192, d = 128", "masked, PyTorch"
    note = "loss memory: VmHWM of a process that does nothing else, libtorch included"
    peaks = column(a, "peak_mib"), column(b, "peak_mib")
    return [
        row(work, against, "s", column(a, "seconds"), column(b, "seconds"), (">=", 3.0), "less"),
        row(f"{work}, peak memory", against, "MiB", *peaks, ("<=", 0.333), "share", note),
    ]


def optimiser_row(rounds):
    say("LARS over res50")
    with measure("lars") as ours, peer("lars") as theirs:
        a, b = in_turns(rounds, ours.ask, theirs.ask)
    seconds = column(a, "seconds"), column(b, "seconds")
    return row("optimiser step, LARS, res50", "upstream's loop, PyTorch", "s", *seconds, (">=", 3.0), "less")


# ---- augment --------------------------------------------------------------------------------------------------------

ONE_CORE = {**os.environ, "OMP_NUM_THREADS": "1"}
CASES = {
    "cifar10 32 px": ("augmentation, CIFAR recipe, 32 px", "views/s", 15, 8),
    "imagenet 224 px of 500 x 375": ("augmentation, ImageNet recipe, 224 px of 500x375", "views/s", None, None),
    "jpeg 500 x 333, 224 px": ("JPEG of 500x333, two 224 px views", "images/s", 3, None),
}


def augment(options):
    """Augmentation on one core against torchvision, and the loader with one and two threads."""
    rows = []
    for case, (work, unit, *targets) in CASES.items():
        say(work)
        a, b = in_turns(1 if options.quick else 5, lambda: criterion(case, options.quick), lambda: torchvision(case, options.quick))
        for name, against, least in zip(("pil", "v2"), ("torchvision, PIL", "torchvision v2, tensors"), targets):
            rows.append(row(work, against, unit, a, column(b, name), least and (">=", least)))
    return [*rows, worker_row(options.quick)]


def criterion(case, quick):
    """Runs one case of benches/augment.rs and reads what criterion wrote."""
    times = ["--warm-up-time", "0.5", "--measurement-time", "1"] if quick else ["--warm-up-time", "1", "--measurement-time", "5"]
    home = program.target_directory() / "criterion"
    command = [program.bench_executable("augment"), "--bench", "--noplot", *times, f"augment/{case}"]
    environment = {**ONE_CORE, "CRITERION_HOME": str(home)}
    subprocess.run(command, cwd=program.ROOT, check=True, stdout=subprocess.DEVNULL, env=environment)
    for described in home.glob("augment/*/new/benchmark.json"):
        content = json.loads(described.read_text())
        if content["function_id"] == case:
            nanoseconds = json.loads(described.with_name("estimates.json").read_text())["median"]["point_estimate"]
            return content["throughput"]["Elements"] / nanoseconds * 1e9
    raise Failed(f"criterion wrote nothing about {case!r} in {home}")


def torchvision(case, quick):
    command = [sys.executable, program.PEER, "augment", case, "0.7" if quick else "4"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=ONE_CORE).stdout)


def worker_row(quick):
    say("the loader with one and two threads")
    images = 16000 if quick else 64000
    with measure("loader", "embedded", 2, images) as two, measure("loader", "embedded", 1, images) as one:
        two.ask()
        one.ask()
        a, b = in_turns(2 if quick else 7, two.ask, one.ask)
    rates = column(a, "images_per_second"), column(b, "images_per_second")
    return row("loader, 32 px, two threads", "one thread", "images/s", *rates)


# ---- index ----------------------------------------------------------------------------------------------------------


def index(options):
    """Indexing a tree of images, and what an image costs in data sets of a thousand to a million.

    The tree has ImageNet's shape: 1,281,167 empty files in 1,000 classes (--quick: 200,000). The file system's own cache is
    as the making of the tree leaves it, the same for both.
    """
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="flatnce-bench-") as place:
        rows = index_rows(Path(place), options.quick) + scale_rows(Path(place), options.quick)
        say("removing the trees")
    return rows


def make_tree(root, count, classes=1000):
    for number in range(classes):
        place = root / f"n{number:08}"
        place.mkdir(parents=True)
        for image in range(count // classes + (number < count % classes)):
            # Not in order, as ImageNet's names are not.
            (place / f"n{number:08}_{image * 7919 % 20011}.JPEG").touch()


def index_rows(place, quick):
    count, rounds = (200_000, 2) if quick else (1_281_167, 5)
    tree, cache = place / "tree", place / "cache"
    say(f"making a tree of {count:,} files in {tree}")
    make_tree(tree, count)
    time.sleep(5)  # What has just changed is not kept in an index.
    say("indexing it")

    def indexed(kept):
        if not kept:
            shutil.rmtree(cache, ignore_errors=True)
        with measure("index", tree, cache) as served:
            answer = {**served.ask(), "baseline_mib": served.ready["memory_mib"]}
        if answer["files"] != count or answer["kept"] != kept:
            raise Failed(f"the index is wrong: {answer}")
        return answer

    with peer("index", tree) as theirs:
        a, b, c = in_turns(rounds, lambda: indexed(False), theirs.ask, lambda: indexed(True))
    work, against, peers = f"indexing {count:,} files in 1,000 classes", "torchvision ImageFolder", column(b, "seconds")
    peak = [max(pair) for pair in zip(column(a, "peak_mib"), column(c, "peak_mib"))]
    note = f"index memory: VmHWM of the process, of which {c[0]['baseline_mib']:.0f} MiB are there before it begins"
    return [
        row(work, against, "s", column(a, "seconds"), peers, (">=", 3.0), "less"),
        row(f"{work}, from the kept index", against, "s", column(c, "seconds"), peers, (">=", 20.0), "less"),
        row(f"{work}, peak memory", None, "MiB", peak, None, ("<=", 250.0), note=note),
    ]


def scale_rows(place, quick):
    """Loading and augmenting an image, files of 32 px, against the size of the set that it is in."""
    import pytorch
    from PIL import Image

    originals = place / "originals"
    originals.mkdir()
    images, _ = pytorch.fashion_images(pytorch.fashion()[0])
    # A file can have some ten thousand names; so many files are enough for a million.
    sources = [originals / f"{number}.jpg" for number in range(50)]
    for source, image in zip(sources, images):
        Image.fromarray(image).save(source, quality=90)
    rows, first = [], None
    for count in [1_000, 100_000] if quick else [1_000, 10_000, 100_000, 1_000_000]:
        root = place / f"set{count}"
        for number in range(count):
            folder = root / f"c{number // 1000:04}"
            if number % 1000 == 0:
                folder.mkdir(parents=True)
            (folder / f"{number}.jpg").hardlink_to(sources[number % 50])
        say(f"an image of {count:,}")
        with measure("loader", root, 1, 20000, FLATNCE_INDEX_CACHE="off", OMP_NUM_THREADS="1") as served:
            served.ask()
            costs = [served.ask()["microseconds_per_image"] for _ in range(2 if quick else 5)]
        first = first or costs
        work, target = f"an image of a set of {count:,}, read and augmented", ("<=", 1.25) if count > 1_000 else None
        rows.append(row(work, "of 1,000", "us", costs, first, target, "share"))
        shutil.rmtree(root)
    return rows


# ---- shards ---------------------------------------------------------------------------------------------------------


def shards(options):
    """Images read at random from the shards of `flatnce pack` against the loose files, with cold and with warm caches.

    20,000 made-up photographs of 500x375 pixels, about 110 kB each, in 100 classes (--quick: 2,000). `read` is the reading
    alone, on four threads a core; `views` is what training asks for: read, decoded, two views of 224 px by ImageNet's recipe.
    The caches are dropped before every cold round: all of them as root, else those of the files.
    """
    count, rounds = (options.images or (2_000 if options.quick else 20_000)), 2 if options.quick else 5
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="flatnce-bench-") as place:
        tree, packed = Path(place) / "tree", Path(place) / "packed"
        say(f"making {count:,} photographs in {tree}")
        make_photographs(tree, count)
        say("packing them")
        begun = time.monotonic()
        program.call("pack", tree, out=packed)
        note = f"packed in {time.monotonic() - begun:.0f} s; index of the shards in {{:.2f}} s, of the tree in {{:.2f}} s"
        files = [*tree.rglob("*.jpg"), *packed.glob("*.tar")]
        rows = []
        for work, images in ("read", count), ("views", min(count, 384 if options.quick else 1_920)):
            threads = 4 * program.CORES if work == "read" else program.CORES
            words = lambda source: ("photographs", work, source, threads, images)
            with measure(*words(packed / "train-*.tar")) as ours, measure(*words(tree)) as theirs:
                for state, before in ("cold", lambda: drop_caches(files)), ("warm", lambda: warm(files)):
                    say(f"{work}, {state}")
                    asked = lambda served: (before(), served.ask())[1]
                    a, b = in_turns(rounds, lambda: asked(ours), lambda: asked(theirs))
                    target = (">=", 2.0) if state == "cold" else None
                    told = note.format(a[0]["index_seconds"], b[0]["index_seconds"])
                    rates = column(a, "images_per_second"), column(b, "images_per_second")
                    rows.append(row(f"{work}, {state}, {threads} threads", "loose files", "images/s", *rates, target, note=told))
                    note = ""
    return rows


def make_photographs(root, count, classes=100):
    """Smooth colours under grain, which compress as photographs do."""
    import io

    import numpy
    from PIL import Image

    draw, files = numpy.random.default_rng(0), []
    for _ in range(100):
        small = Image.fromarray(draw.integers(0, 256, (24, 32, 3), dtype=numpy.uint8))
        grain = draw.normal(0, 14, (375, 500, 1))
        pixels = numpy.asarray(small.resize((500, 375), Image.Resampling.BICUBIC)) + grain
        out = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(numpy.uint8)).save(out, "JPEG", quality=90)
        files.append(out.getvalue())
    for number in range(count):
        place = root / f"n{number % classes:08}"
        if number < classes:
            place.mkdir(parents=True)
        (place / f"{number:06}.jpg").write_bytes(files[number * 37 % len(files)])


def drop_caches(files):
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        for path in files:
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def warm(files):
    for path in files:
        path.read_bytes()


# ---- save -----------------------------------------------------------------------------------------------------------


def save(options):
    """Saving and loading a checkpoint of res50 with LARS state, against torch.save on the same disk.

    Each round lets benches/checkpoint.rs write and read the file, then PyTorch save and load the very state that is in it.
    Both end with the bytes on the disk (fsync); PyTorch's file is written in place, ours beside and renamed.
    """
    import torch

    say("checkpoints")
    with tempfile.TemporaryDirectory(dir=options.directory) as place:
        ours, theirs = Path(place) / "ours.pth.tar", Path(place) / "theirs.pth.tar"
        saved(ours)
        state = torch.load(ours, weights_only=True)
        mine, peers = in_turns(options.rounds or (2 if options.quick else 7), lambda: saved(ours), lambda: torch_saved(state, theirs))
    whole, waited = [one["copy_s"] + one["write_s"] for one in mine], column(mine, "copy_s")
    return [
        row("saving res50 with LARS state, to the disk", "torch.save", "s", whole, column(peers, "save_s"), better="share"),
        row("of which training waits", "torch.save", "s", waited, column(peers, "save_s"), better="share"),
        row("loading it", "torch.load", "s", column(mine, "read_s"), column(peers, "load_s"), better="share"),
    ]


def saved(file):
    command = [program.bench_executable("checkpoint"), file]
    done = subprocess.run(command, cwd=program.ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def torch_saved(state, file):
    import torch

    file.unlink(missing_ok=True)
    start = time.perf_counter()
    with open(file, "wb") as out:
        torch.save(state, out)
        out.flush()
        os.fsync(out.fileno())
    written = time.perf_counter()
    torch.load(file, weights_only=True)
    return {"save_s": written - start, "load_s": time.perf_counter() - written}
