"""Indexing a tree of images, and what an image costs in data sets of a thousand to a million.

    scripts/bench.sh index [--quick] [--json FILE] [--directory DIR]

The tree has ImageNet's shape: 1,281,167 empty files in 1,000 classes (--quick: 200,000). The file system's own
cache is as the making of the tree leaves it, the same for both.
"""

import shutil
import tempfile
import time
from pathlib import Path

import common

CLASSES = 1000


def make_tree(root, count):
    for number in range(CLASSES):
        place = root / f"n{number:08}"
        place.mkdir(parents=True)
        here = count // CLASSES + (number < count % CLASSES)
        for image in range(here):
            # Not in order, as ImageNet's names are not.
            (place / f"n{number:08}_{image * 7919 % 20011}.JPEG").touch()


def index_rows(place, quick):
    count, rounds = (200_000, 2) if quick else (1_281_167, 5)
    tree, cache = place / "tree", place / "cache"
    common.say(f"making a tree of {count:,} files in {tree}")
    make_tree(tree, count)
    time.sleep(5)  # What has just changed is not kept in an index.
    common.say("indexing it")
    theirs = common.peer("index_peer.py", tree)

    def walked():
        shutil.rmtree(cache, ignore_errors=True)
        with common.measure("index", tree, cache) as served:
            return checked(served.ask(), kept=False)

    def kept():
        with common.measure("index", tree, cache) as served:
            baseline = served.ready["memory_mib"]
            return {**checked(served.ask(), kept=True), "baseline_mib": baseline}

    def checked(answer, kept):
        if answer["files"] != count or answer["kept"] != kept:
            raise SystemExit(f"bench: error: the index is wrong: {answer}")
        return answer

    a, b, c = common.in_turns(rounds, walked, theirs.ask, kept)
    theirs.close()
    of = lambda answers, name="seconds": [answer[name] for answer in answers]
    work = f"indexing {count:,} files in 1,000 classes"
    peak = [max(pair) for pair in zip(of(a, "peak_mib"), of(c, "peak_mib"))]
    note = f"index memory: VmHWM of the process, of which {c[0]['baseline_mib']:.0f} MiB are there before it begins"
    return [
        common.row(work, "torchvision ImageFolder", "s", of(a), of(b), (">=", 3.0), "less"),
        common.row(work + ", from the kept index", "torchvision ImageFolder", "s", of(c), of(b), (">=", 20.0), "less"),
        common.row(work + ", peak memory", None, "MiB", peak, None, ("<=", 250.0), note=note),
    ]


def scale_rows(place, quick):
    """Loading and augmenting an image, files of 32 px, against the size of the set that it is in."""
    from PIL import Image

    import upstream

    originals = place / "originals"
    originals.mkdir()
    images = upstream.fashion_images()
    # A file can have some ten thousand names; so many files are enough for a million.
    sources = []
    for number in range(50):
        sources.append(originals / f"{number}.jpg")
        Image.fromarray(images[number]).save(sources[-1], quality=90)
    rows, first = [], None
    for count in [1_000, 100_000] if quick else [1_000, 10_000, 100_000, 1_000_000]:
        root = place / f"set{count}"
        for number in range(count):
            if number % 1000 == 0:
                folder = root / f"c{number // 1000:04}"
                folder.mkdir(parents=True)
            (folder / f"{number}.jpg").hardlink_to(sources[number % 50])
        common.say(f"an image of {count:,}")
        with common.measure("loader", root, "1", "20000", FLATNCE_INDEX_CACHE="off", OMP_NUM_THREADS="1") as served:
            served.ask()
            costs = [served.ask()["microseconds_per_image"] for _ in range(2 if quick else 5)]
        first = first or costs
        target = ("<=", 1.25) if count > 1_000 else None
        rows.append(
            common.row(f"an image of a set of {count:,}, read and augmented", "of 1,000", "us", costs, first, target, "share")
        )
        shutil.rmtree(root)
    return rows


def main():
    where = lambda parser: parser.add_argument("--directory", help="make the trees below DIR (default: the system's temporary directory)")
    options = common.arguments(__doc__, where)
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="flatnce-bench-") as place:
        rows = index_rows(Path(place), options.quick) + scale_rows(Path(place), options.quick)
        common.say("removing the trees")
    common.finish("index", rows, options)


main()
