"""Augmentation on one core against torchvision, and the loader with one and two threads.

    scripts/bench.sh augment [--quick] [--json FILE]
"""

import json
import os
import subprocess
import sys

import common

ONE_CORE = {**os.environ, "OMP_NUM_THREADS": "1"}
CASES = {
    "cifar10 32 px": ("augmentation, CIFAR recipe, 32 px", "views/s", 15, 8),
    "imagenet 224 px of 500 x 375": ("augmentation, ImageNet recipe, 224 px of 500x375", "views/s", None, None),
    "jpeg 500 x 333, 224 px": ("JPEG of 500x333, two 224 px views", "images/s", 3, None),
}


def ours(case, quick):
    """Runs one case of benches/augment.rs and reads what criterion wrote."""
    times = ["--warm-up-time", "0.5", "--measurement-time", "1"] if quick else ["--warm-up-time", "1", "--measurement-time", "5"]
    home = common.target_directory() / "criterion"
    command = [common.bench_executable("augment"), "--bench", "--noplot", *times, f"augment/{case}"]
    subprocess.run(
        command, cwd=common.ROOT, check=True, stdout=subprocess.DEVNULL, env={**ONE_CORE, "CRITERION_HOME": str(home)}
    )
    for described in home.glob("augment/*/new/benchmark.json"):
        content = json.loads(described.read_text())
        if content["function_id"] == case:
            nanoseconds = json.loads(described.with_name("estimates.json").read_text())["median"]["point_estimate"]
            return content["throughput"]["Elements"] / nanoseconds * 1e9
    sys.exit(f"bench: error: criterion wrote nothing about {case!r} in {home}")


def theirs(case, quick):
    command = [sys.executable, common.HERE / "augment_peer.py", "--json", "--only", case, "--seconds", "0.7" if quick else "4"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=ONE_CORE).stdout)[case]


def rows_of(case, quick):
    work, unit, pil, v2 = CASES[case]
    common.say(work)
    a, b = common.in_turns(1 if quick else 5, lambda: ours(case, quick), lambda: theirs(case, quick))
    target = lambda least: (">=", least) if least else None
    return [
        common.row(work, "torchvision, PIL", unit, a, [rates["pil"] for rates in b], target(pil)),
        common.row(work, "torchvision v2, tensors", unit, a, [rates["v2"] for rates in b], target(v2)),
    ]


def worker_row(quick):
    common.say("the loader with one and two threads")
    images = "16000" if quick else "64000"
    with common.measure("loader", "embedded", "2", images) as two, common.measure("loader", "embedded", "1", images) as one:
        two.ask()
        one.ask()
        a, b = common.in_turns(2 if quick else 7, two.ask, one.ask)
    of = lambda answers: [answer["images_per_second"] for answer in answers]
    return common.row("loader, 32 px, two threads", "one thread", "images/s", of(a), of(b))


def main():
    options = common.arguments(__doc__)
    rows = [row for case in CASES for row in rows_of(case, options.quick)] + [worker_row(options.quick)]
    common.finish("augment", rows, options)


main()
