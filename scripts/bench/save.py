"""Saving and loading a checkpoint of res50 with LARS state, against torch.save on the same disk.

    scripts/bench.sh save [--quick] [--json FILE] [--directory DIR]
"""

import checkpoint_peer
import common


def main():
    where = lambda parser: parser.add_argument("--directory", help="where the files go (default: the system's temporary directory)")
    options = common.arguments(__doc__, where)
    common.say("checkpoints")
    rounds = checkpoint_peer.measure(2 if options.quick else 7, options.directory)
    of = lambda name: [one[name] for one in rounds]
    whole = [one["copy_s"] + one["write_s"] for one in rounds]
    rows = [
        common.row("saving res50 with LARS state, to the disk", "torch.save", "s", whole, of("save_s"), better="share"),
        common.row("of which training waits", "torch.save", "s", of("copy_s"), of("save_s"), better="share"),
        common.row("loading it", "torch.load", "s", of("read_s"), of("load_s"), better="share"),
    ]
    common.finish("save", rows, options)


main()
