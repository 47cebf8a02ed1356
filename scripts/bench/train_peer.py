"""Pre-trains in PyTorch for a few steps and says when each was done: the peer of train.py and start.py.

    python scripts/bench/train_peer.py upstream|tuned MODEL STEPS [--workers N]

One line of JSON a step, with the seconds since 1970. upstream.py says what the two manners are.
"""

import argparse
import json
import os
import time

import torch
import upstream


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manner", choices=["upstream", "tuned"])
    parser.add_argument("model", choices=upstream.BLOCKS)
    parser.add_argument("steps", type=int)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    torch.manual_seed(0)
    tuned = options.manner == "tuned"
    model = upstream.Encoder(options.model).train()
    if tuned:
        model = model.to(memory_format=torch.channels_last)
        optimiser = upstream.ListLars(model.parameters(), lr=1e-4)
    else:
        optimiser = upstream.LoopLars(model.parameters(), lr=1e-4)

    def objective(images):
        if not tuned:
            return upstream.masked_loss(model(images))
        with torch.autocast("cpu", torch.bfloat16):
            projected = model(images)
        return upstream.lean_loss(projected)

    if tuned:
        objective = torch.compile(objective)
    batches = upstream.loader(upstream.fashion_images(), options.batch, options.workers, stay=tuned)
    step = 0
    while step < options.steps:
        for views in batches:
            images = torch.cat(views, dim=0)
            if tuned:
                images = images.contiguous(memory_format=torch.channels_last)
            loss = objective(images)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
            print(json.dumps({"step": step, "time": time.time(), "loss": loss.item()}), flush=True)
            if step == options.steps:
                break


if __name__ == "__main__":
    main()
