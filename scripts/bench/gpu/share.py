"""The augmentation's share of a step: views rendered alone, waited for, against the time of a training step."""

import os
import statistics

import data
import report
import timing

import common

NOTE = "augmentation: views rendered alone, waited for, as a share of a training step's time"


def run(options, found):
    size = data.Sizes(options)
    if "FLATNCE_MEASURE" not in os.environ and "FLATNCE_BINARY" in os.environ:
        found.left_out("the augmentation's share", "no benches/measure of this program (--measure FILE)")
        return
    program = os.environ.get("FLATNCE_MEASURE") or common.bench_executable("measure")
    for shape, batch, work, words, images in (
        ("32", size.batch, size.name, data.cifar_words, size.images),
        ("224", size.large_batch, size.large_name, data.stl_words, size.large_images),
    ):
        name = f"augmentation's share of a step, {shape} px"
        training = lambda: rate(options, work, [*words(options, batch), "--engine=tensor"], images)
        found.attempt(name, lambda: row(options, found, name, [program, "tensors", shape, str(batch)], batch, training))


def rate(options, work, words, images):
    """Images a second in training: as a stage before has measured it, else measured now."""
    known = [one for one in report.read(options.out / "results.jsonl") if one["kind"] == "row" and one["work"] == work]
    return known[0]["ours_median"] if known else statistics.median(timing.Ours(options, words, 3, images).rates)


def row(options, found, name, words, batch, training):
    with common.Server([*words, options.device, "2" if options.smoke else "30"]) as served:
        served.ask()
        seconds = [served.ask()["seconds"] for _ in range(3)]
    step = batch / training()
    target = None if options.smoke else ("<=", 8.0)
    found.row(name, None, "%", [100 * alone / step for alone in seconds], None, target, note=NOTE)
