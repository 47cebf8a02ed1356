"""The rows of res18 with the step launched kernel by kernel, and with the fused kernels: what each is worth."""

import data
import replay
import timing
from report import Failed

FUSED, PLAIN = ("with the fused kernels", ["--fused-kernels=yes"]), ("without CUDA graphs", ["--cuda-graph=no"])


def run(options, found):
    size = data.Sizes(options)
    # What the default may become first; a large batch keeps a GPU busy without graphs.
    for (name, words), batch in ((FUSED, size.batch), (FUSED, size.small_batch), (PLAIN, size.small_batch)):
        work = f"{size.small}, 32 px, batch {batch}, bf16, {name}"
        found.attempt(work, lambda: row(options, found, work, batch, words))


def row(options, found, work, batch, words):
    mine = timing.small(options, batch, *words, epochs=3)
    if "--fused-kernels=yes" in words and options.device != "cpu" and not any(replay.FUSED in line for line in mine.words):
        said = next((line.strip() for line in mine.words if "kernels: " in line), "nothing")
        raise Failed(f"the fused kernels were not used; the program said {said}")
    found.row(work, None, "images/s", mine.rates, None)
    found.row(f"peak memory of {work}", None, "MiB", [mine.peak_mib], None)
