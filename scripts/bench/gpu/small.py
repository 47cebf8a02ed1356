"""res18 at 32 pixels, batch 512 and 32: the rows that most people train."""

import data
import timing


def run(options, found):
    size = data.Sizes(options)
    found.attempt("the rows of the large batch", lambda: large_batch(options, found, size))
    found.attempt("the rows of the small batch", lambda: small_batch(options, found, size))


def alone(options, found, work, mine, target):
    found.row(work, None, "images/s", mine.rates, None, None if options.smoke else target, note=timing.WHOLE)
    found.row(f"{work}, whole epochs", None, "images/s", mine.whole, None)
    if mine.step:
        found.note(f"{work}: {mine.step}")


def large_batch(options, found, size):
    busy = None if options.device == "cpu" else timing.Busy(options.device)
    mine = timing.small(options, size.batch, busy=busy)
    work = size.name
    alone(options, found, work, mine, (">=", 20_000))
    samples = busy.stop() if busy else []
    if samples:
        found.row("device busy", None, "%", samples, None, (">=", 95.0))
    else:
        found.left_out("device busy", (busy.problem or "nvidia-smi said nothing") if busy else "this is the CPU")
    peer = (size.small, "cifar.npy", size.batch, 32)
    plan = {"compiled": (20, 60, 3), "overhead": (20, 60, 3)}
    told = timing.against(options, found, work, mine, plan, timing.NAMES, {"compiled": (">=", 1.0), "overhead": (">=", 1.0)}, *peer)
    memory(found, work, mine, told)
    # Their images go through PIL, or are rendered before the first step: as many as they need.
    plan = {"upstream": (2, 10, 2), "faster": (3, 20, 2)}
    timing.against(
        options, found, work, mine, plan, timing.NAMES, {"upstream": (">=", 10), "faster": (">=", 4)}, *peer, "--limit=12800"
    )


def memory(found, work, mine, told):
    """Both numbers are what the same allocator of libtorch's held at most."""
    peaks = [one["reserved_peak_mib"] for name, one in told.items() if name in ("compiled", "overhead") and "reserved_peak_mib" in one]
    if peaks:
        found.row(f"peak memory of {work}", "torch.compile, the least that it took", "MiB", [mine.peak_mib], [min(peaks)], ("<=", 1.0), "share")
    else:
        found.left_out(f"peak memory of {work}", "no compiled peer on a GPU to compare with")


def small_batch(options, found, size):
    mine = timing.small(options, size.small_batch)
    work = f"{size.small}, 32 px, batch {size.small_batch}, bf16"
    alone(options, found, work, mine, (">=", 12_000))
    plan = {"eager": (20, 100, 3), "overhead": (20, 200, 3)}
    targets = {"eager": (">=", 1.5), "overhead": (">=", 1.0)}
    timing.against(options, found, work, mine, plan, timing.NAMES, targets, size.small, "cifar.npy", size.small_batch, 32)
