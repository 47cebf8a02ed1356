"""What a batch that cannot fit says, whether the batch that it names fits, and --dry-run's estimate against the peak.

On the CPU, which has more memory than patience, a limit of the address space stands for a small card.
"""

import re
import resource

import embedded
import program
import report
from data import Sizes, cifar
from program import Failed

# The estimate may be so far from the peak, in percent: on CPUs it is within 7 of a peak that varies by 10.
ESTIMATE = 20
# MiB of address space in --smoke, and for the batch that should fit: threads reserve some of it without using it.
LIMIT_MIB, ROOMIER_MIB = 1_800, 2_200


def memory(options, found):
    found.attempt("running out of memory", lambda: too_large(options, found))
    found.attempt("the memory estimate", lambda: estimate(options, found))


def too_large(options, found):
    """res50 at 224 pixels keeps some 90 MB a view: of 8,000 views, 700 GB."""
    on_cpu = options.device == "cpu"
    batch, size = 4_000, {"model": "res50", "image_size": 224, "precision": "bf16"}
    if on_cpu:
        batch, size = 512, {"model": "res10", "image_size": 32, "precision": "fp32"}
    flags = {**embedded.IMAGES, "device": options.device, "knn_every": 0, "engine": "tensor", **size}
    flags["save_dir"] = embedded.place(options, "out_of_memory")

    def limited(mib, **more):
        limit = (lambda: resource.setrlimit(resource.RLIMIT_AS, (mib << 20, mib << 20))) if on_cpu else None
        return program.outcome(program.command(**flags, **more), limit)

    # The program is to begin what it can see will not fit.
    status, _, errors = limited(LIMIT_MIB, batch_size=batch, epochs=1, memory_check="off")
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    fits = re.search(r"; --batch-size (\d+) should fit", lines[0]) if lines else None
    raw = [word for word in ("panicked", "frame #", "Traceback", "terminate called") if word in errors]
    holds = status == 1 and len(lines) == 1 and "out of memory" in lines[0] and fits is not None and not raw
    found.check("running out of memory is one error that names the batch that fits", holds, status=status, said=lines[:2], raw=raw)
    if fits is None:
        raise Failed(f"no batch is named: {errors.strip()[-300:]}")
    batch = int(fits[1])
    # Epochs of one step, as many as it takes until a step has been recorded as a CUDA graph and replayed.
    epochs = {"train_images": batch, "epochs": 1 if options.smoke else 8, "save_every_n_epochs": 100}
    status, _, errors = limited(ROOMIER_MIB, batch_size=batch, **epochs)
    found.check("the batch that it names fits", status == 0, batch=batch, **({} if status == 0 else {"error": errors[-300:]}))


def estimate(options, found):
    size, flags = Sizes(options), cifar(options, Sizes(options).batch)
    said = program.call("--dry-run", **flags)
    told = re.search(r"about ([\d.]+) GiB", said)
    if told is None:
        raise Failed(f"--dry-run names no memory: {said[-300:]}")
    estimated = 1024 * float(told[1])
    # The sixth step is recorded as a CUDA graph, and replayed after that: it has memory of its own.
    images = size.batch * (2 if options.smoke else 8)
    made = program.train(embedded.place(options, "peak"), **flags, epochs=1, train_images=images, knn_every=0)
    peak = made.lines("metrics.jsonl")[-1]["memory_peak_mib"]
    off, target = 100 * abs(estimated / peak - 1), None if options.smoke else ("<=", ESTIMATE)
    note = f"--dry-run says {estimated:.0f} MiB, the peak was {peak:.0f} MiB"
    found.row(f"memory estimate of {size.name}, away from the peak", None, "%", [off], None, target, note=note)
    # What torch.compile took for the same step, where the table has it.
    for one in report.read(options.out / "results.jsonl"):
        if one["kind"] == "row" and one["work"] == f"peak memory of {size.name}" and one["theirs"]:
            found.row(f"memory estimate of {size.name}", one["against"], "MiB", [estimated], one["theirs"], better="share")
