"""Saving and loading a checkpoint of res50 with LARS state: flatnce against torch.save, on the same disk, in one run.

    python scripts/bench/checkpoint_peer.py [--rounds 7] [--directory DIR]

Each round lets benches/checkpoint.rs write and read the file, then PyTorch save
and load the very state that is in it. Both end with the bytes on the disk
(fsync); PyTorch's file is written in place, ours beside and renamed.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]


def ours(file):
    command = ["cargo", "bench", "--quiet", "--bench", "checkpoint", "--", str(file)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def theirs(state, file):
    Path(file).unlink(missing_ok=True)
    start = time.perf_counter()
    with open(file, "wb") as out:
        torch.save(state, out)
        out.flush()
        os.fsync(out.fileno())
    saved = time.perf_counter()
    torch.load(file, weights_only=True)
    return {"save_s": saved - start, "load_s": time.perf_counter() - saved}


def measure(rounds, directory=None):
    """The seconds of each round, ours and PyTorch's in turns."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        file = Path(place) / "ours.pth.tar"
        ours(file)
        state = torch.load(file, weights_only=True)
        return [{**ours(file), **theirs(state, Path(place) / "theirs.pth.tar")} for _ in range(rounds)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--directory", default=None, help="where the files go (default: the system's temporary directory)")
    options = parser.parse_args()
    rounds = measure(options.rounds, options.directory)
    median = lambda key: statistics.median(r[key] for r in rounds)
    ratio = lambda key, peer: statistics.median(r[key] / r[peer] for r in rounds)
    whole = [dict(r, whole_s=r["copy_s"] + r["write_s"]) for r in rounds]
    print(f"res50 with LARS state, {rounds[0]['bytes'] / 2**20:.0f} MiB, medians of {options.rounds} rounds")
    print("| | flatnce | PyTorch | ratio |")
    print("|---|---|---|---|")
    save = statistics.median(r["whole_s"] for r in whole)
    save_ratio = statistics.median(r["whole_s"] / r["save_s"] for r in whole)
    print(f"| save, to the disk | {save:.3f} s | {median('save_s'):.3f} s | {save_ratio:.2f} |")
    print(f"| of which training waits | {median('copy_s'):.3f} s | {median('save_s'):.3f} s | {ratio('copy_s', 'save_s'):.2f} |")
    print(f"| load | {median('read_s'):.3f} s | {median('load_s'):.3f} s | {ratio('read_s', 'load_s'):.2f} |")


if __name__ == "__main__":
    main()
