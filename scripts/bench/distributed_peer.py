"""Pre-trains in PyTorch with DistributedDataParallel over Gloo for a few steps: the peer of distributed.py.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29501 \\
        python scripts/bench/distributed_peer.py MODEL STEPS [--images N]

One rank a process, one core each. Features are gathered with their gradient, so that every anchor sees the negatives of
all ranks; BatchNorm uses each rank's own images, because PyTorch's SyncBatchNorm works on GPUs only. Rank 0 writes one
line of JSON a step, with the seconds since 1970.
"""

import argparse
import json
import os
import time

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as together
import torch.nn.functional as F
import upstream
from torch.nn.parallel import DistributedDataParallel


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=upstream.BLOCKS)
    parser.add_argument("steps", type=int)
    parser.add_argument("--images", type=int, default=64, help="images of each rank in a step")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo")
    encoder = upstream.Encoder(options.model).train().to(memory_format=torch.channels_last)
    model = DistributedDataParallel(encoder, gradient_as_bucket_view=True)
    optimiser = upstream.ListLars(model.parameters(), lr=1e-4)
    data = upstream.TwoViews(upstream.fashion_images())
    sampler = torch.utils.data.DistributedSampler(data, ranks, rank, shuffle=True, drop_last=True)
    batches = torch.utils.data.DataLoader(
        data, batch_size=options.images, sampler=sampler, drop_last=True, num_workers=1, persistent_workers=True
    )
    step = 0
    while step < options.steps:
        for first, second in batches:
            images = torch.cat([first, second]).contiguous(memory_format=torch.channels_last)
            unit = F.normalize(model(images), dim=1)
            if ranks > 1:
                parts = [part.view(2, options.images, -1) for part in together.all_gather(unit)]
                unit = torch.cat(parts, dim=1).flatten(0, 1)
            # Each rank takes the loss of all anchors; DistributedDataParallel's mean of the gradients is then theirs.
            loss = upstream.lean_loss(unit)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
            if rank == 0:
                print(json.dumps({"step": step, "time": time.time(), "loss": loss.item()}), flush=True)
            if step == options.steps:
                break
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
