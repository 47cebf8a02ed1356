"""What a batch that cannot fit says, whether the batch that it names fits, and --dry-run's estimate against the peak.

On the CPU, which has more memory than patience, a limit of the address space stands for a small card.
"""

import re
import resource

import data
import report
import runner

import common
from report import Failed

# The estimate may be so far from the peak, in percent: on CPUs it is within 7 of a peak that varies by 10.
ESTIMATE = 20
# MiB of address space in --smoke, and for the batch that should fit: threads reserve some of it without using it.
LIMIT_MIB, ROOMIER_MIB = 1_800, 2_200


def run(options, found):
    found.attempt("running out of memory", lambda: too_large(options, found))
    found.attempt("the memory estimate", lambda: estimate(options, found))


def limited(options, mib):
    if options.device != "cpu":
        return None
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (mib << 20, mib << 20))


def too_large(options, found):
    """res50 at 224 pixels keeps some 90 MB a view: of 8,000 views, 700 GB."""
    batch, size = 4_000, ["--model=res50", "--image-size=224", "--precision=bf16"]
    if options.device == "cpu":
        batch, size = 512, ["--model=res10", "--image-size=32", "--precision=fp32"]
    words = [common.binary(), *runner.DATA, f"--device={options.device}", "--knn-every=0", "--engine=tensor", *size]
    save = f"--save-dir={options.place / options.stage / 'out_of_memory'}"
    status, _, errors = runner.outcome(options, [*words, f"--batch-size={batch}", "--epochs=1", save], preexec=limited(options, LIMIT_MIB))
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    fits = re.search(r"; --batch-size (\d+) should fit", lines[0]) if lines else None
    raw = [word for word in ("panicked", "frame #", "Traceback", "terminate called") if word in errors]
    holds = status == 1 and len(lines) == 1 and "out of memory" in lines[0] and fits is not None and not raw
    found.check("running out of memory is one error that names the batch that fits", holds, status=status, said=lines[:2], raw=raw)
    if fits is None:
        raise Failed(f"no batch is named: {errors.strip()[-300:]}")
    batch = int(fits[1])
    # Epochs of one step, as many as it takes until a step has been recorded as a CUDA graph and replayed.
    words += [f"--batch-size={batch}", f"--train-images={batch}", f"--epochs={1 if options.smoke else 8}", "--save-every-n-epochs=100", save]
    status, _, errors = runner.outcome(options, words, preexec=limited(options, ROOMIER_MIB))
    found.check("the batch that it names fits", status == 0, batch=batch, **({} if status == 0 else {"error": errors[-300:]}))


def estimate(options, found):
    words = data.cifar_words(options, data.Sizes(options).batch)
    said = runner.call(options, [common.binary(), *words, "--engine=tensor", "--dry-run"])
    told = re.search(r"about ([\d.]+) GiB", said)
    if told is None:
        raise Failed(f"--dry-run names no memory: {said[-300:]}")
    estimated = 1024 * float(told[1])
    results = options.place / options.stage / "peak"
    # The sixth step is recorded as a CUDA graph, and replayed after that: it has memory of its own.
    images = data.Sizes(options).batch * (2 if options.smoke else 8)
    runner.call(options, [
        common.binary(), *words, "--engine=tensor", "--epochs=1", f"--train-images={images}", "--knn-every=0", f"--save-dir={results}",
    ])  # fmt: skip
    peak = runner.below(results).lines("metrics.jsonl")[-1]["memory_peak_mib"]
    off = 100 * abs(estimated / peak - 1)
    note = f"--dry-run says {estimated:.0f} MiB, the peak was {peak:.0f} MiB"
    target = None if options.smoke else ("<=", ESTIMATE)
    name = data.Sizes(options).name
    found.row(f"memory estimate of {name}, away from the peak", None, "%", [off], None, target, note=note)
    # What torch.compile took for the same step, where the table has it.
    for one in report.read(options.out / "results.jsonl"):
        if one["kind"] == "row" and one["work"] == f"peak memory of {name}" and one["theirs"]:
            found.row(f"memory estimate of {name}", one["against"], "MiB", [estimated], one["theirs"], better="share")
