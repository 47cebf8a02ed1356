"""Fills torch.compile's cache for the peers, all shapes beside each other: compiling is the CPU's work, and would take the
table minutes."""

import time
from concurrent.futures import ThreadPoolExecutor

import data
import large
import timing
from report import Failed

# Graphs are recorded in the second run and replayed in the third.
STEPS = (3, 1, 1)
WAIT_SECONDS = 60


def run(options, found):
    size, done = data.Sizes(options), options.place / "inductor" / "all_compiled"
    if done.exists():
        found.note("an earlier call has compiled them")
        return
    # Each in a process of its own: what takes longest is one thread that traces and generates code.
    shapes = [
        (["compiled"], *large.peer(size)),
        (["compiled"], size.small, "cifar.npy", size.batch, 32),
        (["overhead"], size.small, "cifar.npy", size.batch, 32),
        (["overhead"], size.small, "cifar.npy", size.small_batch, 32),
    ]
    # Nothing is kept of what the smoke test compiles: one shows that it works.
    shapes = shapes[-1:] if options.smoke else shapes
    with ThreadPoolExecutor(len(shapes)) as pool:
        told = [one for shape in pool.map(lambda shape: compiled(options, *shape), shapes) for one in shape]
    for one in told:
        if "error" in one:
            found.note(f"not compiled beforehand: {one['manner']}: {one['error']}")
    seconds = [one["warm_seconds"] for one in told if "warm_seconds" in one]
    if len(seconds) == len(told) and not options.smoke:
        done.touch()
    found.note(f"{len(seconds)} of {len(told)} peers are compiled, the slowest in {max(seconds, default=0):.0f} s")


def compiled(options, manners, model, file, *shape):
    until = time.monotonic() + WAIT_SECONDS
    while not (data.home(options) / file).exists():
        if time.monotonic() > until:
            raise Failed(f"{file} has not been made within {WAIT_SECONDS} s")
        time.sleep(0.1)
    return [one for _, one in timing.peers(options, dict.fromkeys(manners, STEPS), model, file, *shape)]
