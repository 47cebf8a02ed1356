"""Training: images a second in steady state, memory, and what the loop costs beside the arithmetic.

    scripts/bench.sh train [--quick] [--json FILE] [--only res10|res18|loop]

Images are Fashion-MNIST at 32x32 RGB (the whole set where it is installed, else the sample in the repository), batch
128, LARS, two views an image. Each number is that of a process of its own; ours and theirs take turns.
"""

import common
import runs


def model_rows(model, quick):
    best = lambda: runs.ours(model, None, *((2, 3) if quick else (8, 4)))
    plain = lambda: runs.ours(model, "fp32", *((2, 2) if quick else (6, 4)))
    recipe = lambda: runs.theirs("upstream", model, *((1, 2) if quick else (2, 8)))
    tuned = lambda: runs.theirs("tuned", model, *((2, 5) if quick else (4, 16)))
    works = [best, recipe, tuned, plain]
    if quick and model != "res10":
        works = works[:2]  # torch.compile and a second precision would take minutes.
    common.say(f"training {model}: flatnce, upstream's recipe" + (", PyTorch tuned, flatnce in fp32" * (len(works) > 2)))
    results = common.in_turns(1 if quick else 3, *works)
    rates = [[run["rate"] for run in kept] for kept in results]
    target = {"res10": 3.2, "res18": 2.7}[model]
    rows = [
        common.row(f"training {model}, best precision", "upstream's recipe", "images/s", *rates[:2], (">=", target))
    ]
    if len(works) > 2:
        peer = "PyTorch channels-last, bf16, torch.compile"
        rows.append(common.row(f"training {model}, best precision", peer, "images/s", rates[0], rates[2], (">=", 1.0)))
        rows.append(common.row(f"training {model}, fp32", "upstream's recipe", "images/s", rates[3], rates[1], (">=", 1.5)))
    if model == "res18":
        peaks = [[run["peak_mib"] for run in kept] for kept in results[:2]]
        note = "memory: the peak of the sum of PSS over the process and its workers, looked at twice a second"
        rows.append(
            common.row("peak memory, training res18", "upstream's recipe", "MiB", *peaks, ("<=", 0.6), "share", note)
        )
    return rows


def loop_rows(model, quick):
    """The program's loop against the bare arithmetic on one batch, in turns within one process."""
    common.say(f"what the loop costs, {model}")
    rounds, steps = (2, 4) if quick else (7, 12)
    with common.measure("loop", model, "auto", str(steps)) as served:
        answers = [served.ask() for _ in range(rounds)]
    note = (
        "loop: an epoch of the program against as many bare steps (forward, loss, backward, optimiser) on a batch that "
        "is there, in turns in one process; the loader's CPU time is that of its threads, as a share of one core"
    )
    of = lambda name: [100 * answer[name] for answer in answers]
    return [
        common.row(f"all but forward, backward, optimiser, {model}", None, "%", of("share"), None, ("<=", 3.0), note=note),
        common.row(f"waiting for data, {model}", None, "%", of("data_wait_share"), None, note=note),
        common.row(f"CPU time of the loader, {model}", None, "%", of("loader_cpu_share"), None, note=note),
    ]


def diagnostics_row(model, quick):
    """What the numbers for people cost, as a share of a step: a close look in 50 steps, an epoch of 468 steps."""
    common.say(f"diagnostics, {model}")
    with common.measure("diagnostics", model) as served:
        served.ask()
        answers = [served.ask() for _ in range(2 if quick else 9)]
    shares = [100 * (a["every"] + a["closer"] / 50 + a["epoch"] / 468) / a["step"] for a in answers]
    note = (
        "diagnostics: the numbers of every step, 1/50 of a close look (--log-every) and 1/468 of an epoch's end (60,000 "
        "images at batch 128), as a share of a step"
    )
    return common.row(f"diagnostics, {model}", None, "%", shares, None, ("<=", 1.0), note=note)


def main():
    only = lambda parser: parser.add_argument("--only", choices=["res10", "res18", "loop"], help="this part only")
    options = common.arguments(__doc__, only)
    rows = []
    for model in ["res10", "res18"]:
        if options.only in (None, model):
            rows += model_rows(model, options.quick)
    looped = options.only if options.only in ("res10", "res18") else "res10"
    rows += loop_rows(looped, options.quick)
    rows.append(diagnostics_row(looped, options.quick))
    common.finish("train", rows, options)


main()
