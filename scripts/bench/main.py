"""bench.sh: measures the parts that are asked for and writes their rows, as a table and as JSON."""

import argparse
import inspect
import os
import sys
import time
from pathlib import Path

import common
import evaluation
import pieces
import program
import training

WHOLE = {"type": int, "metavar": "N"}
DIRECTORY = {"metavar": "DIR", "help": "make the files below DIR (default: the system's temporary directory)"}
# What a part measures, what does it, and the options that it has beside --quick and --json.
PARTS = {
    "train": ("images a second, memory, what the loop costs", training.train, {
        "only": {"choices": ["res10", "res18", "loop"], "help": "this part only"},
    }),
    "kernels": ("loss and optimiser", pieces.kernels, {}),
    "augment": ("augmentation and JPEG decoding; the loader's threads", pieces.augment, {}),
    "start": ("start of the process to its first step", training.start, {}),
    "index": ("a tree of 1,281,167 files; an image in sets of 1,000 to 1,000,000", pieces.index, {"directory": DIRECTORY}),
    "shards": ("images read from shards against loose files, cold and warm; not in \"all\"", pieces.shards, {
        "directory": DIRECTORY,
        "images": {**WHOLE, "help": "files (default: 20,000, with --quick 2,000)"},
    }),
    "save": ("checkpoints", pieces.save, {
        "directory": DIRECTORY,
        "rounds": {**WHOLE, "help": "default: 7, with --quick 2"},
    }),
    "eval": ("evaluation", evaluation.evaluation, {
        "only": {"choices": evaluation.TARGETS, "help": "one of the two comparisons (default: both)"},
        "rounds": {**WHOLE, "help": "default: 1 of the linear evaluation, 3 of the features; with --quick 1 of each"},
        "precision": {"help": "fp32, bf16 or both with a comma (default: both where the CPU has bf16, with --quick bf16 alone)"},
        "data": {"help": "directory that holds fashion_mnist/ (default: where it is installed, else the embedded images)"},
        "binary": {"help": "the program (default: what cargo build --release made)"},
    }),
    "distributed": ("several processes against PyTorch's DistributedDataParallel;\nnot in \"all\"", training.distributed, {}),
    "precision": ("accuracy after training in bf16 and in fp32: 40 minutes, not in \"all\"", training.precision, {
        "seeds": {**WHOLE, "help": "trainings in each precision (default: 3, with --quick 1)"},
        "images": {**WHOLE, "help": "training images (default: 5,000, with --quick 640)"},
        "epochs": {**WHOLE, "help": "default: 5, with --quick 1"},
    }),
    "all": ("all of these but shards and the last two, and one table at the end: about an hour", None, {}),
}  # fmt: skip
ALL = [name for name in list(PARTS)[:8] if name != "shards"]
USAGE = """./scripts/bench.sh PART [--quick] [--json FILE] [OPTION...]

Builds the program, makes the Python environment (scripts/setup.sh --python: 5 GB,
once), runs flatnce and its peers in turns and prints medians, ratios and targets.

{parts}

  --quick      rough numbers; all of it in about 5 minutes on 2 cores
  --json FILE  every number, with the machine, the versions, the commit and the date
  OPTION       of the part alone: ./scripts/bench.sh PART --help

Close other programs: they slow both sides, and seldom both alike."""


def arguments():
    named = (f"  {name:<11} " + about.replace("\n", "\n" + " " * 14) for name, (about, _, _) in PARTS.items())
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", usage=USAGE.format(parts="\n".join(named)))
    parts = parser.add_subparsers(dest="part", required=True, prog="./scripts/bench.sh", help=argparse.SUPPRESS)
    for name, (about, work, more) in PARTS.items():
        about = inspect.getdoc(work) if work else about
        part = parts.add_parser(name, description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
        part.add_argument("--quick", action="store_true", help="few rounds: seconds to a minute or two, rough numbers")
        part.add_argument("--json", metavar="FILE", help="write the rows, the machine and the versions to FILE")
        for option, details in more.items():
            part.add_argument(f"--{option}", **details)
    if sys.argv[1:] and not sys.argv[1].startswith("-") and sys.argv[1] not in PARTS:
        parser.exit(2, f"bench: error: '{sys.argv[1]}' is none of: {' '.join(PARTS)}.\n  ./scripts/bench.sh --help\n")
    options = parser.parse_args()
    if options.json and not os.access(Path(options.json).parent, os.W_OK):
        # Known before the hour, not after it.
        raise program.Failed(f"{options.json} cannot be written: its directory is not there.")
    return options


def measured(name, options):
    """What the file of a part holds."""
    rows = PARTS[name][1](options)
    print(common.table(rows), flush=True)
    if name == "distributed":
        print(f"\n{training.predictions()}")
    return {"part": name, "quick": options.quick, **common.surroundings(), "rows": rows}


def every_part(options):
    """One table of all at the end; a part that fails is named, and the next follows."""
    begun, parts, failed = time.monotonic(), {}, []
    for name in ALL:
        print(f"\n== {name}", flush=True)
        words = argparse.Namespace(**vars(options), **dict.fromkeys(PARTS[name][2]))
        try:
            parts[name] = measured(name, words)
        except Exception as error:
            print(f"{program.script}: error: {name}: {error}", file=sys.stderr)
            failed.append(name)
    where = common.surroundings()
    machine, rows = where["machine"], [row for part in parts.values() for row in part["rows"]]
    print(f"\n{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
          f"avx512_bf16: {'yes' if machine['avx512_bf16'] else 'no'}; PyTorch {where['versions']['torch']}; "
          f"{where['commit']}; {where['date'][:10]}\n")  # fmt: skip
    print(common.table(rows))
    count = lambda met: sum(row["met"] is met for row in rows)
    print(f"\n{count(True)} targets met, {count(False)} missed", flush=True)
    if options.json:
        common.write_json(options.json, {**where, "quick": options.quick, "parts": parts})
    if failed:
        raise program.Failed(f"failed: {' '.join(failed)}")
    print(f"\nMeasured in {time.monotonic() - begun:.0f} s.")


def main():
    options = arguments()
    common.set_up(["build", "--release"], ["bench", "--no-run"])
    if options.part == "all":
        return every_part(options)
    content = measured(options.part, options)
    if options.json:
        common.write_json(options.json, content)


common.run_as("bench", main)
