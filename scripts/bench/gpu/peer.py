"""Contrastive pre-training in PyTorch on a device, in several manners: the peers of prove_gpu.sh.

    python scripts/bench/gpu/peer.py MANNER:WARM:STEPS:BLOCKS... --model M --images FILE --size N --batch N --device D
        [--strength S] [--blur] [--limit N] [--backend inductor] [--profile N]

A line of JSON a manner, when it is known: images a second of each of BLOCKS blocks of STEPS steps, after WARM that do not
count, and the highest memory that PyTorch's allocator held on the device; or what went wrong. With --profile the kernels of N
further steps by their time.

eager     channels-last, bf16 autocast; uint8 images on the device, views rendered there (views.py); LARS over lists
compiled  the same through torch.compile: encoder and objective, the views, the optimiser's step
overhead  the same with its mode reduce-overhead, which replays encoder and objective as CUDA graphs
upstream  main.py's recipe: float32, PIL images in worker processes, the objective through masks, LARS as a loop
faster    main.py's faster version: the same on tensors that were augmented once, before the first step
"""

import argparse
import gc
import json
import os
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch
import torch._dynamo.utils
from views import views

sys.path.append(str(Path(__file__).resolve().parents[1]))
import upstream

MANNERS = ["eager", "compiled", "overhead", "upstream", "faster"]


def tuned(options, images, manner):
    """A function that takes one step."""
    device = options.device
    encoder = upstream.Encoder(options.model, small=options.size < 128).to(device).train()
    encoder = encoder.to(memory_format=torch.channels_last)
    optimiser = upstream.ListLars(encoder.parameters(), lr=1e-4)
    stored = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).contiguous()

    def objective(batch):
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            projected = encoder(batch)
        return upstream.lean_loss(projected)

    augment = lambda chosen: views(chosen, options.size, options.strength, options.blur)
    update = optimiser.step
    if manner != "eager":
        mode = "reduce-overhead" if manner == "overhead" else "default"
        objective = torch.compile(objective, backend=options.backend, mode=mode)
        # A few large kernels each: nothing is left for a graph to save, and their inputs are new tensors every step.
        augment, update = (torch.compile(work, backend=options.backend) for work in (augment, update))
    order, at = None, 0

    def step():
        nonlocal order, at
        if order is None or at + options.batch > len(order):
            order, at = torch.randperm(len(stored), device=device), 0
        torch.compiler.cudagraph_mark_step_begin()
        with torch.no_grad():
            batch = augment(stored[order[at : at + options.batch]])
        at += options.batch
        # Before the forward pass: gradients lie in the graph's own memory, which it writes anew.
        optimiser.zero_grad()
        objective(batch).backward()
        update()

    return step


def recipe(options, images, faster):
    """main.py's step."""
    device = options.device
    encoder = upstream.Encoder(options.model, small=options.size < 128).to(device).train()
    optimiser = upstream.LoopLars(encoder.parameters(), lr=1e-4)
    if faster:
        ready = []
        for first in range(0, len(images), 128):
            chunk = torch.from_numpy(images[first : first + 128]).permute(0, 3, 1, 2).to(device)
            ready.append(views(chunk, options.size, options.strength, options.blur).cpu().unflatten(0, (2, -1)))
        first, second = (torch.cat([pair[view] for pair in ready]) for view in (0, 1))
        pairs = torch.utils.data.TensorDataset(first, second)
        batches = torch.utils.data.DataLoader(pairs, batch_size=options.batch, drop_last=True)
    else:
        batches = upstream.loader(images, options.batch, options.workers, stay=False)
    under_way = iter(batches)

    def step():
        nonlocal under_way
        try:
            pair = next(under_way)
        except StopIteration:
            under_way = iter(batches)
            pair = next(under_way)
        loss = upstream.masked_loss(encoder(torch.cat(pair, 0).to(device)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()

    return step


def measured(options, images, manner, warm, steps, blocks):
    on_gpu = torch.device(options.device).type == "cuda"
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    begun = time.perf_counter()
    step = tuned(options, images, manner) if manner in MANNERS[:3] else recipe(options, images, manner == "faster")
    for _ in range(warm):
        step()
    wait()
    result = {"manner": manner, "warm_seconds": time.perf_counter() - begun, "rates": []}
    for _ in range(blocks):
        wait()
        begun = time.perf_counter()
        for _ in range(steps):
            step()
        wait()
        result["rates"].append(steps * options.batch / (time.perf_counter() - begun))
    if on_gpu:
        result["reserved_peak_mib"] = torch.cuda.max_memory_reserved() / 2**20
        result["allocated_peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    if manner == "overhead":
        # Parts that inductor could not record, for which it launches kernel by kernel: then the mode is not what it says.
        result["graph_skips"] = torch._dynamo.utils.counters["inductor"]["cudagraph_skips"]
    if options.profile:
        result["kernels"] = profiled(options, step, wait, on_gpu)
    return result


def profiled(options, step, wait, on_gpu):
    """[name, microseconds, calls] of what took longest; of operations instead of kernels on the CPU."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as seen:
        for _ in range(options.profile):
            step()
        wait()
    spent = lambda event: event.self_device_time_total if on_gpu else event.self_cpu_time_total
    # On a GPU kernels alone: neither the calls of the host that launched them nor marks around several of them.
    counts = lambda event: spent(event) > 0 and (not on_gpu or event.device_type == DeviceType.CUDA and not event.key.startswith("##"))
    events = sorted(filter(counts, seen.key_averages()), key=spent, reverse=True)
    return [[event.key, spent(event), event.count] for event in events[:60]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manners", nargs="+", metavar="MANNER:WARM:STEPS:BLOCKS")
    parser.add_argument("--model", choices=upstream.BLOCKS, required=True)
    parser.add_argument("--images", required=True, help="npy file, u8 [N, H, W, 3]")
    for name in ("size", "batch"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--strength", type=float, default=0.5)
    parser.add_argument("--blur", action="store_true")
    parser.add_argument("--limit", type=int, help="take so many images only")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--profile", type=int, default=0, metavar="N")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    images = np.load(options.images)[: options.limit]
    for text in options.manners:
        manner, *counts = text.split(":")
        if manner not in MANNERS:
            parser.error(f"{manner} is none of: {' '.join(MANNERS)}")
        torch.manual_seed(0)
        try:
            result = measured(options, images, manner, *map(int, counts))
        except Exception as error:
            # The others can still be measured; what to compare with is missing, and said.
            traceback.print_exc()
            result = {"manner": manner, "error": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"}
        print(json.dumps(result), flush=True)
        torch.compiler.reset()
        torch._dynamo.utils.counters.clear()
        gc.collect()


if __name__ == "__main__":
    main()
