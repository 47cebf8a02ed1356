"""The rows that are timed: res18 at 32 pixels, which most people train, res50 at 224, and the augmentation's share of a step."""

import os
import statistics

import common
import data
import timing
from data import Sizes

WHOLE = "steps alone, as the peers are timed; the whole epoch, its end included, is a row of its own"
SHARE = "augmentation: views rendered alone, waited for, as a share of a training step's time"


def alone(options, found, work, mine, target):
    found.row(work, None, "images/s", mine.rates, None, None if options.smoke else target, note=WHOLE)
    found.row(f"{work}, whole epochs", None, "images/s", mine.whole, None)
    if mine.step:
        found.note(f"{work}: {mine.step}")


def peak(found, work, mine, told):
    """Both numbers are what the same allocator of libtorch's held at most."""
    peaks = [told[name]["reserved_peak_mib"] for name in ("compiled", "overhead") if "reserved_peak_mib" in told.get(name, {})]
    if peaks:
        against = "torch.compile, the least that it took"
        found.row(f"peak memory of {work}", against, "MiB", [mine.peak_mib], [min(peaks)], ("<=", 1.0), "share")
    else:
        found.left_out(f"peak memory of {work}", "no compiled peer on a GPU to compare with")


def small(options, found):
    found.attempt("the rows of the large batch", lambda: large_batch(options, found, Sizes(options)))
    found.attempt("the rows of the small batch", lambda: small_batch(options, found, Sizes(options)))


def large_batch(options, found, size):
    busy = None if options.device == "cpu" else timing.Busy(options.device)
    mine = timing.small(options, size.batch, busy=busy)
    alone(options, found, size.name, mine, (">=", 20_000))
    if samples := busy.stop() if busy else []:
        found.row("device busy", None, "%", samples, None, (">=", 95.0))
    else:
        found.left_out("device busy", (busy.problem or "nvidia-smi said nothing") if busy else "this is the CPU")
    peer = (size.small, "cifar.npy", size.batch, 32)
    plan, targets = {"compiled": (20, 60, 3), "overhead": (20, 60, 3)}, {"compiled": (">=", 1.0), "overhead": (">=", 1.0)}
    peak(found, size.name, mine, timing.against(options, found, size.name, mine, plan, targets, *peer))


def small_batch(options, found, size):
    mine = timing.small(options, size.small_batch)
    alone(options, found, size.small_name, mine, (">=", 12_000))
    plan, targets = {"eager": (20, 100, 3), "overhead": (20, 200, 3)}, {"eager": (">=", 1.5), "overhead": (">=", 1.0)}
    timing.against(options, found, size.small_name, mine, plan, targets, size.small, "cifar.npy", size.small_batch, 32)


def recipes(options, found):
    """Their images go through PIL, or are rendered before the first step: as many as they need."""
    size = Sizes(options)
    targets = {"upstream": (">=", 10), "faster": (">=", 4)}
    large, small = {"upstream": (2, 10, 2), "faster": (3, 20, 2)}, {"upstream": (3, 60, 2), "faster": (3, 100, 2)}
    for work, batch, plan in ((size.name, size.batch, large), (size.small_name, size.small_batch, small)):
        peer = (size.small, "cifar.npy", batch, 32, "--limit=12800")
        mine = timing.Known.of(options, work) or timing.small(options, batch, epochs=3)
        found.attempt(f"{work}, main.py's", lambda: timing.against(options, found, work, mine, plan, targets, *peer))


def variants(options, found):
    """The step with libtorch's kernels, and launched kernel by kernel: what the program's own and CUDA graphs are worth."""
    size = Sizes(options)
    plain, launched = ("libtorch's kernels", {"fused_kernels": "no"}), ("without CUDA graphs", {"cuda_graph": "no"})
    # A large batch keeps a GPU busy without graphs.
    for (name, flags), batch in ((plain, size.batch), (plain, size.small_batch), (launched, size.small_batch)):
        work = f"{size.small}, 32 px, batch {batch}, bf16, {name}"
        found.attempt(work, lambda: variant(options, found, work, batch, flags))


def variant(options, found, work, batch, flags):
    mine = timing.small(options, batch, epochs=3, **flags)
    found.row(work, None, "images/s", mine.rates, None)
    found.row(f"peak memory of {work}", None, "MiB", [mine.peak_mib], None)


def large(options, found):
    """The images lie on the device."""
    size = Sizes(options)
    mine = timing.Ours(options, 3 if options.smoke else 4, size.large_images, **data.stl(options, size.large_batch))
    alone(options, found, size.large_name, mine, None)
    # Not reduce-overhead: of a step of a tenth of a second launches are no part, and compiling it again takes half a minute.
    plan, targets = {"compiled": (5, 15, 3)}, {"compiled": (">=", 1.0)}
    told = timing.against(options, found, size.large_name, mine, plan, targets, *timing.large_peer(size))
    peak(found, size.large_name, mine, told)


def files(options, found):
    """From JPEG files that the CPU's cores decode, against the same with the images on the device."""
    size, epochs = Sizes(options), 3 if options.smoke else 4
    batch = size.file_batch
    read = timing.Ours(options, epochs, size.files * data.NAMES, **data.jpeg(options, batch))
    work = f"{size.large}, {size.large_side} px, batch {batch}, bf16, from JPEG files of 500 x 375"
    found.row(work, None, "images/s", read.rates, None)
    found.row(f"{work}, waiting for them", None, "%", [read.waited], None)
    resident = timing.Ours(options, epochs - 1, size.large_images, **data.stl(options, batch))
    count, target = min(len(read.rates), len(resident.rates)), None if options.smoke else (">=", 0.9)
    against = "with the images on the device, ours too"
    found.row(work, against, "images/s", read.rates[-count:], resident.rates[-count:], target)


def share(options, found):
    size = Sizes(options)
    if "FLATNCE_MEASURE" not in os.environ and "FLATNCE_BINARY" in os.environ:
        found.left_out("the augmentation's share", "no benches/measure of this program (--measure FILE)")
        return
    for shape, batch, work, flags, images in (
        (32, size.batch, size.name, data.cifar, size.images),
        (224, size.large_batch, size.large_name, data.stl, size.large_images),
    ):
        name = f"augmentation's share of a step, {shape} px"
        training = lambda: rate(options, work, images, **flags(options, batch))
        found.attempt(name, lambda: share_row(options, found, name, shape, batch, training))


def rate(options, work, images, **flags):
    """Images a second in training: as a stage before has measured it, else measured now."""
    known = timing.Known.of(options, work) or timing.Ours(options, 3, images, **flags)
    return statistics.median(known.rates)


def share_row(options, found, name, shape, batch, training):
    with common.measure("tensors", shape, batch, options.device, 2 if options.smoke else 30) as served:
        served.ask()
        seconds = [served.ask()["seconds"] for _ in range(3)]
    step, target = batch / training(), None if options.smoke else ("<=", 8.0)
    found.row(name, None, "%", [100 * alone / step for alone in seconds], None, target, note=SHARE)
