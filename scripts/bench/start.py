"""From the start of the process to the end of its first optimiser step, res18, batch 128.

    scripts/bench.sh start [--quick] [--json FILE]

Ours is taken when the line of an epoch of one step is in metrics.jsonl, so that the epoch's end counts against us.
"""

import common
import runs


def main():
    options = common.arguments(__doc__)
    common.say("start to first step")
    ours, theirs = common.in_turns(
        1 if options.quick else 5,
        lambda: runs.ours("res18", None, 1, 1)["first"],
        lambda: runs.theirs("upstream", "res18", 1, 0)["first"],
    )
    row = common.row("start to first step, res18", "upstream's recipe", "s", ours, theirs, ("<=", 0.3), "share")
    common.finish("start", [row], options)


main()
