"""The step replayed as a CUDA graph, and the fused kernels, against the plain step; two words of the log say that they ran.

All runs train the same 20 steps: res18, batch 64, the rate rising from 0. On the CPU the flags change nothing, to the bit.
"""

import runner

from report import Failed

REPLAYED = "step: replayed as a CUDA graph"
FUSED = "kernels: fused"
# Two runs of the same command may differ where cuDNN tries its algorithms and chooses differently, or adds in no order. Then a
# replayed run may be so many times as far from a plain one as that is from its like.
FACTOR = 4
# The fused kernels round to bf16 less often than the plain ones: their losses differ by as much as rounding to bf16 matters,
# which is how far the plain run in bf16 is from the plain run in float32. Twice that; and never less than this, in nats.
BF16_FACTOR, BF16_LEAST = 2, 1e-3

RUNS = {
    "plain": ["--cuda-graph=no", "--precision=bf16"],
    "plain again": ["--cuda-graph=no", "--precision=bf16"],
    "replayed": ["--cuda-graph=auto", "--precision=bf16"],
    "fused": ["--cuda-graph=no", "--fused-kernels=yes", "--precision=bf16"],
    "float32": ["--cuda-graph=no", "--precision=fp32"],
}


def run(options, found):
    runs = runner.Runs(runner.width(options))
    size = ["--model=res10", "--image-size=16", "--batch-size=8", "--train-images=24"]
    size = size if options.smoke else ["--model=res18", "--batch-size=64", "--train-images=1280"]
    for name, words in RUNS.items():
        words = [*size, *words, "--engine=tensor", "--epochs=1", "--warmup-epochs=10", "--log-every=0"]
        runs.start(name, runner.train, options, name.replace(" ", "_"), *words)
    found.attempt("a replayed run is a plain one", lambda: replayed(found, runs))
    found.attempt("fused kernels give the plain losses", lambda: fused(found, runs))
    for name, sentence in (("replayed", REPLAYED), ("fused", FUSED)):
        if options.device == "cpu":
            found.left_out(f"whether the log says '{sentence}'", "this is the CPU")
        else:
            found.attempt(f"the log says '{sentence}'", lambda: says(found, runs[name], sentence))


def replayed(found, runs):
    plain, again, other = (runs[name] for name in ("plain", "plain again", "replayed"))
    noise, difference = runner.apart(plain.losses(), again.losses()), runner.apart(plain.losses(), other.losses())
    alike = lambda one: runner.same_bits(plain.checkpoint(1), one.checkpoint(1))
    repeats, same = alike(again), alike(other)
    holds = same and difference == 0 if repeats else difference <= FACTOR * noise
    found.check(
        "a replayed run is a plain one", holds, steps=len(other.losses()), same_bits=same, worst_difference=difference,
        plain_repeats_itself=repeats, plain_from_itself=noise,
    )  # fmt: skip


def fused(found, runs):
    plain = runs["plain"].losses()
    rounding = runner.apart(plain, runs["float32"].losses())
    difference, allowed = runner.apart(plain, runs["fused"].losses()), max(BF16_LEAST, BF16_FACTOR * rounding)
    found.check("fused kernels give the plain losses", difference <= allowed, worst_difference=difference, allowed=allowed, bf16_from_float32=rounding)


def says(found, made, sentence):
    """The line itself, or the one that says why not."""
    subject = sentence.partition(":")[0] + ":"
    lines = [line.strip() for line in made.log().splitlines() if subject in line]
    if not lines:
        raise Failed(f"the log has no line '{subject} ...'")
    found.check(f"the log says '{sentence}'", any(sentence in line for line in lines), line=lines[-1])
