"""Where a step's time goes: the kernels of ours by ncu, those of torch.compile by PyTorch's profiler, summed by their names.

kernels.csv has both. ncu measures 900 launches in a row, 12,000 after the start, when cuDNN has chosen its algorithms; clocks
and caches are left alone. The step is launched kernel by kernel, so that every kernel has its name.
"""

import csv
import glob
import os
import shutil

import embedded
import program
import timing
from data import Sizes, cifar
from program import Failed

SKIPPED, COUNTED = 12_000, 900
SHOWN = 12
MICROSECONDS = {"ns": 1e-3, "nsecond": 1e-3, "us": 1.0, "usecond": 1.0, "ms": 1e3, "msecond": 1e3}
# What a kernel is for, by words of its name; the first that fits.
KINDS = {
    "convolution, matrix product": ["conv", "gemm", "xmma", "cutlass", "sm80_", "sm90_", "nvjet", "implicit", "wgrad", "dgrad"],
    "optimiser": ["multi_tensor", "foreach", "lpnorm"],
    "BatchNorm": ["batch_norm", "batchnorm", "bn_", "statistics", "weigh_", "give_back", "apply_", "finish_gradients"],
    "views": ["render_views"],
    "reduction": ["reduce", "softmax", "norm"],
    "copy, index": ["copy", "memcpy", "memset", "index", "gather", "cat"],
    "elementwise": ["elementwise", "triton_poi", "vectorized"],
}


def kernels(options, found):
    file = options.out / "kernels.csv"
    with open(file, "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["side", "kind", "kernel", "microseconds", "share", "calls"])
        for side, work in (("flatnce", ours), ("torch.compile", theirs)):
            listed = found.attempt(f"kernels of {side}", lambda: work(options, found))
            if listed:
                told(found, writer, side, listed)
                out.flush()


def told(found, writer, side, listed):
    total = sum(time for _, time, _ in listed)
    kinds = {}
    for name, time, calls in listed:
        kind = kind_of(name)
        kinds[kind] = kinds.get(kind, 0) + time
        writer.writerow([side, kind, name, f"{time:.1f}", f"{time / total:.4f}", calls])
    shares = ", ".join(f"{kind} {100 * time / total:.1f}%" for kind, time in sorted(kinds.items(), key=lambda item: -item[1]))
    found.note(f"{side}: {total / 1000:.2f} ms in {sum(calls for *_, calls in listed)} launches: {shares}")
    for name, time, calls in listed[:SHOWN]:
        found.note(f"  {100 * time / total:5.1f}%  {calls:5d} x  {name[:110]}")


def kind_of(name):
    name = name.lower()
    return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "other")


def ours(options, found):
    """[name, microseconds, launches], the longest first; None where there is no ncu, which is said."""
    places = ["/usr/local/cuda/bin/ncu", *sorted(glob.glob("/opt/nvidia/nsight-compute/*/ncu"))]
    ncu = shutil.which("ncu") or next((path for path in places if os.access(path, os.X_OK)), None)
    if ncu is None:
        found.left_out("kernels of flatnce", "there is no ncu here")
        return None
    size, log = Sizes(options), embedded.place(options, "ncu.csv")
    images, place = size.batch * (4 if options.smoke else 48), embedded.place(options, "profiled")
    asked = program.command(**cifar(options, size.batch), cuda_graph="no", epochs=1, train_images=images, knn_every=0, save_dir=place)
    profiler = [ncu, "--clock-control", "none", "--cache-control", "none", "--metrics", "gpu__time_duration.sum", "-s", SKIPPED]
    profiler += ["-c", COUNTED, "--csv", "--print-units", "base", "--log-file", log]
    status, _, errors = program.outcome([*profiler, *asked])
    text = log.read_text(errors="replace") if log.exists() else ""
    listed = parsed(text)
    if not listed:
        # It may be forbidden here: not the program's fault.
        said = (text if log.exists() else errors).strip()[-300:]
        found.left_out("kernels of flatnce", f"ncu ended with status {status} and listed none: {said}")
        return None
    return listed


def parsed(text):
    """The launches of ncu's CSV, summed by name."""
    lines = text.splitlines()
    head = next((number for number, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    spent = {}
    for line in csv.DictReader(lines[head:]):
        try:
            time = float(line["Metric Value"].replace(",", "")) * MICROSECONDS[line["Metric Unit"]]
        except (KeyError, ValueError, AttributeError):
            continue  # Its own words between the lines.
        one = spent.setdefault(line["Kernel Name"], [0.0, 0])
        one[0] += time
        one[1] += 1
    return sorted(([name, time, calls] for name, (time, calls) in spent.items()), key=lambda one: -one[1])


def theirs(options, found):
    size = Sizes(options)
    [one] = timing.peers(options, {"compiled": (20, 5, 1)}, size.small, "cifar.npy", size.batch, 32, "--profile=5")
    if "error" in one:
        raise Failed(one["error"])
    return one["kernels"]
