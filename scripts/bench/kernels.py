"""The loss, forward and backward, and a step of the optimiser, against upstream's way in PyTorch.

    scripts/bench.sh kernels [--quick] [--json FILE]
"""

import common


def loss_rows(rounds):
    views, dim = "8192", "128"
    common.say(f"loss of {views} views")
    with common.measure("loss", views, dim) as ours, common.peer("kernels_peer.py", "loss", views, dim) as theirs:
        ours.ask()
        theirs.ask()
        a, b = common.in_turns(rounds, ours.ask, theirs.ask)
    if abs(a[0]["value"] - b[0]["value"]) > 0.05:
        raise SystemExit(f"bench: error: the losses differ: {a[0]['value']} and {b[0]['value']}")
    of = lambda answers, name: [answer[name] for answer in answers]
    work = "loss forward and backward, 2B = 8192, d = 128"
    note = "loss memory: VmHWM of a process that does nothing else, libtorch included"
    return [
        common.row(work, "masked, PyTorch", "s", of(a, "seconds"), of(b, "seconds"), (">=", 3.0), "less"),
        common.row(
            work + ", peak memory", "masked, PyTorch", "MiB", of(a, "peak_mib"), of(b, "peak_mib"), ("<=", 0.333), "share", note
        ),
    ]


def optimiser_rows(rounds):
    common.say("LARS over res50")
    with common.measure("lars") as ours, common.peer("kernels_peer.py", "lars") as theirs:
        a, b = common.in_turns(rounds, lambda: ours.ask()["seconds"], lambda: theirs.ask()["seconds"])
    return [common.row("optimiser step, LARS, res50", "upstream's loop, PyTorch", "s", a, b, (">=", 3.0), "less")]


def main():
    options = common.arguments(__doc__)
    rows = loss_rows(2 if options.quick else 9) + optimiser_rows(3 if options.quick else 15)
    common.finish("kernels", rows, options)


main()
