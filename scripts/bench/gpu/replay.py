"""The step replayed as a CUDA graph, and the fused kernels, against the plain step; two words of the log say that they ran.

All runs train the same 20 steps of res18 at batch 64, while the rate rises from 0: a recorded rate, count or image that stands
still would show. On the CPU the flags change nothing, to the bit.
"""

import runner

from report import Failed

REPLAYED = "step: replayed as a CUDA graph"
FUSED = "kernels: fused"
# Two runs of one command may differ: cuDNN tries its algorithms, may choose differently, and some add in no order. Where bits
# differ, a replayed run may be so many times as far from a plain one as a second plain one is, or as far as rounding matters.
FACTOR = 4
# The fused kernels round to bf16 less often than the plain ones: their losses differ by as much as rounding to bf16 matters,
# which is how far the plain run in bf16 is from the plain run in float32. Twice that; and never less than this, in nats.
BF16_FACTOR, BF16_LEAST = 2, 1e-3

PLAIN, ADAM, LARS = ["--cuda-graph=no"], ["--optimizer=adam", "--lr=1e-3"], ["--optimizer=lars", "--lr=1"]
BF16, FP32 = ["--precision=bf16"], ["--precision=fp32"]
RUNS = {
    "adam": [*ADAM, *PLAIN, *BF16],
    "adam again": [*ADAM, *PLAIN, *BF16],
    "adam replayed": [*ADAM, "--cuda-graph=auto", *BF16],
    "adam float32": [*ADAM, *PLAIN, *FP32],
    "adam fused": [*ADAM, *PLAIN, "--fused-kernels=yes", *BF16],
    "adam fused replayed": [*ADAM, "--cuda-graph=auto", "--fused-kernels=yes", *BF16],
    "lars": [*LARS, *PLAIN, *BF16],
    "lars again": [*LARS, *PLAIN, *BF16],
    "lars replayed": [*LARS, "--cuda-graph=auto", *BF16],
    "lars float32": [*LARS, *PLAIN, *FP32],
}


def run(options, found):
    runs = runner.Runs(runner.width(options))
    size = ["--model=res10", "--image-size=16", "--batch-size=4", "--train-images=8"]
    size = size if options.smoke else ["--model=res18", "--batch-size=64", "--train-images=1280"]
    for name, words in RUNS.items():
        words = [*size, *words, "--engine=tensor", "--epochs=1", "--warmup-epochs=1", "--log-every=0"]
        runs.start(name, runner.train, options, name.replace(" ", "_"), *words)
    for optimiser in ("adam", "lars"):
        check = f"a replayed run is a plain one, {optimiser}"
        found.attempt(check, lambda: replayed(found, check, *(runs[optimiser + rest] for rest in ("", " again", " replayed", " float32"))))
    found.attempt("fused kernels give the plain losses", lambda: fused(found, runs))
    for name, sentence in (("adam replayed", REPLAYED), ("adam fused", FUSED)):
        if options.device == "cpu":
            found.left_out(f"whether the log says '{sentence}'", "this is the CPU")
        else:
            found.attempt(f"the log says '{sentence}'", lambda: says(found, runs[name], sentence))


def replayed(found, check, plain, again, other, float32):
    noise, difference = runner.apart(plain.losses(), again.losses()), runner.apart(plain.losses(), other.losses())
    rounding = runner.apart(plain.losses(), float32.losses())
    same = runner.same_bits(plain.checkpoint(1), other.checkpoint(1))
    allowed = max(FACTOR * noise, rounding)
    holds = same and difference == 0 or difference <= allowed
    numbers = {"worst_difference": difference, "allowed": allowed, "plain_from_itself": noise}
    found.check(check, holds, steps=len(other.losses()), same_bits=same, **numbers)


def fused(found, runs):
    plain = runs["adam"].losses()
    rounding = runner.apart(plain, runs["adam float32"].losses())
    launched, replayed = (runner.apart(plain, runs[name].losses()) for name in ("adam fused", "adam fused replayed"))
    allowed = max(BF16_LEAST, BF16_FACTOR * rounding)
    numbers = {"worst_difference": launched, "worst_difference_replayed": replayed, "allowed": allowed, "bf16_from_float32": rounding}
    found.check("fused kernels give the plain losses", max(launched, replayed) <= allowed, **numbers)


def says(found, made, sentence):
    """The last line on the matter: a recording that fails is told after the first."""
    subject = sentence.partition(":")[0] + ":"
    lines = [line.strip() for line in made.words() if subject in line]
    if not lines:
        raise Failed(f"the program said nothing of '{subject} ...'")
    found.check(f"the log says '{sentence}'", sentence in lines[-1], line=lines[-1])
