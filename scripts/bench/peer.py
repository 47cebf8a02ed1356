"""The PyTorch side of every pair, as a process of its own.

    peer.py steps MANNER:WARM:STEPS:BLOCKS... --model M [OPTION...]    contrastive pre-training, timed
    peer.py loss VIEWS DIM | lars | index DIRECTORY                    one answer for each line read (common.Server)
    peer.py augment CASE SECONDS | linear|features CHECKPOINT DIRECTORY PRECISION

Every answer is a line of JSON. Of `steps` there is one a manner, when it is known: images a second of each of BLOCKS blocks
of STEPS steps, after WARM that do not count, when the first step was done (seconds since 1970), and the highest memory that
PyTorch's allocator held on a GPU; or what went wrong. With --profile the kernels of N further steps by their time.

upstream  main.py's recipe: float32, PIL images in worker processes, the objective through masks, LARS as a loop
faster    main.py's faster version: the same on tensors that were augmented once, before the first step
tuned     PIL images in workers that stay; channels-last, bf16 autocast, torch.compile, LARS over lists
eager     channels-last, bf16 autocast; uint8 images on the device, views rendered there; LARS over lists
compiled  the same through torch.compile: encoder and objective, the views, the optimiser's step
overhead  the same with its mode reduce-overhead, which replays encoder and objective as CUDA graphs
ranks     a rank of DistributedDataParallel over Gloo (RANK, WORLD_SIZE, ...): float32, channels-last, PIL images, LARS over
          lists. Features are gathered with their gradient, so that every anchor sees the negatives of all ranks; BatchNorm
          uses each rank's own images, because PyTorch's SyncBatchNorm works on GPUs only
"""

import argparse
import contextlib
import gc
import io
import json
import os
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import pytorch
import torch
from torchvision import transforms

RECIPES, ON_DEVICE = ["upstream", "faster"], ["eager", "compiled", "overhead"]
MANNERS = [*RECIPES, "tuned", *ON_DEVICE, "ranks"]


def answer(content):
    print(json.dumps(content), flush=True)


# ---- steps ----------------------------------------------------------------------------------------------------------


def arguments(words):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manners", nargs="+", metavar="MANNER:WARM:STEPS:BLOCKS")
    parser.add_argument("--model", choices=pytorch.BLOCKS, required=True)
    parser.add_argument("--images", help="npy file, u8 [N, H, W, 3] (default: Fashion-MNIST)")
    parser.add_argument("--size", type=int, default=32, help="pixels of a view")
    parser.add_argument("--batch", type=int, default=128, help="images of a step, of each rank")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--strength", type=float, default=0.5)
    parser.add_argument("--blur", action="store_true")
    parser.add_argument("--limit", type=int, help="take so many images only")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--profile", type=int, default=0, metavar="N")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args(words)


def batches(options, images, manner):
    """Views [2B, 3, S, S] without end."""
    device, cpu_images = options.device, lambda part: torch.from_numpy(part).permute(0, 3, 1, 2)
    render = lambda chosen: pytorch.views(chosen, options.size, options.strength, options.blur)
    if manner in ON_DEVICE:
        # A few large kernels: nothing is left for a graph to save, and their inputs are new tensors every step.
        render = render if manner == "eager" else torch.compile(render, backend=options.backend)
        stored = cpu_images(images).to(device).contiguous()
        while True:
            for rows in torch.randperm(len(stored), device=device).split(options.batch):
                if len(rows) == options.batch:
                    with torch.no_grad():
                        rendered = render(stored[rows])
                    yield rendered
    loading = {"batch_size": options.batch, "drop_last": True}
    if manner == "faster":
        parts = [render(cpu_images(images[first : first + 128]).to(device)).cpu() for first in range(0, len(images), 128)]
        pairs = [part.unflatten(0, (2, -1)) for part in parts]
        data = torch.utils.data.TensorDataset(*(torch.cat([pair[view] for pair in pairs]) for view in (0, 1)))
    else:
        data = pytorch.TwoViews(images)
        stay = manner != "upstream" and options.workers > 0
        loading |= {"shuffle": True, "num_workers": options.workers, "persistent_workers": stay}
    if manner == "ranks":
        loading |= {"shuffle": False, "sampler": torch.utils.data.DistributedSampler(data, shuffle=True, drop_last=True)}
    loader = torch.utils.data.DataLoader(data, **loading)
    while True:
        for pair in loader:
            both = torch.cat(pair, 0).to(device)
            yield both if manner in RECIPES else both.contiguous(memory_format=torch.channels_last)


def gathered(projected):
    """The projections of all ranks, [first views; second views]. Each takes the loss of all anchors:
    DistributedDataParallel's mean of the gradients is then theirs."""
    import torch.distributed.nn.functional as together

    unit = torch.nn.functional.normalize(projected, dim=1)
    if torch.distributed.get_world_size() == 1:
        return unit
    parts = [part.view(2, len(unit) // 2, -1) for part in together.all_gather(unit)]
    return torch.cat(parts, dim=1).flatten(0, 1)


def stepper(options, images, manner):
    """A function that takes one step."""
    encoder = pytorch.Encoder(options.model, small=options.size < 128).to(options.device).train()
    source = batches(options, images, manner)
    if manner in RECIPES:
        optimiser = pytorch.LoopLars(encoder.parameters(), lr=1e-4)
        objective = lambda both: pytorch.masked_loss(encoder(both))
    else:
        encoder = encoder.to(memory_format=torch.channels_last)
        if manner == "ranks":
            encoder = torch.nn.parallel.DistributedDataParallel(encoder, gradient_as_bucket_view=True)
        optimiser = pytorch.ListLars(encoder.parameters(), lr=1e-4)

        def objective(both):
            with torch.autocast(torch.device(options.device).type, torch.bfloat16, enabled=manner != "ranks"):
                projected = encoder(both)
            return pytorch.lean_loss(gathered(projected) if manner == "ranks" else projected)

    update = optimiser.step
    if manner in ("tuned", "compiled", "overhead"):
        mode = "reduce-overhead" if manner == "overhead" else "default"
        objective = torch.compile(objective, backend=options.backend, mode=mode)
    if manner in ("compiled", "overhead"):
        update = torch.compile(update, backend=options.backend)

    def step():
        if manner in ON_DEVICE:
            torch.compiler.cudagraph_mark_step_begin()
            both = next(source)
            # Before the forward pass: gradients lie in the graph's own memory, which it writes anew.
            optimiser.zero_grad()
            objective(both).backward()
            update()
            return
        loss = objective(next(source))
        optimiser.zero_grad()
        loss.backward()
        update()
        loss.item()

    return step


def measured(options, images, manner, warm, steps, blocks):
    on_gpu = torch.device(options.device).type == "cuda"
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    begun = time.perf_counter()
    step = stepper(options, images, manner)
    result = {"manner": manner}
    for _ in range(warm):
        step()
        result.setdefault("first", time.time())
    wait()
    result |= {"warm_seconds": time.perf_counter() - begun, "rates": []}
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


def steps(*words):
    options = arguments(words)
    torch.backends.cudnn.benchmark = True
    images = np.load(options.images) if options.images else pytorch.fashion_images(pytorch.fashion()[0])[0]
    for text in options.manners:
        manner, *counts = text.split(":")
        if manner not in MANNERS:
            sys.exit(f"{manner} is none of: {' '.join(MANNERS)}")
        torch.manual_seed(0)
        if manner == "ranks":
            torch.distributed.init_process_group("gloo")
        try:
            result = measured(options, images[: options.limit], manner, *map(int, counts))
        except Exception as error:
            # The others can still be measured; what to compare with is missing, and said.
            traceback.print_exc()
            result = {"manner": manner, "error": f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"}
        answer(result)
        if manner in ON_DEVICE:
            torch.compiler.reset()
            torch._dynamo.utils.counters.clear()
        gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


# ---- what is asked again and again ----------------------------------------------------------------------------------


def serve(work):
    """The peer's end of common.Server: `work()` gives a dictionary; the time it took is added unless it has one."""

    def status(name):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))

    answer({"ready": True, "memory_mib": status("VmRSS")})
    for _ in sys.stdin:
        start = time.perf_counter()
        content = work()
        content.setdefault("seconds", time.perf_counter() - start)
        answer({**content, "peak_mib": status("VmHWM")})


def loss(views, dim):
    """FlatNCE, forward and backward."""
    torch.manual_seed(0)
    projected = torch.randn(int(views), int(dim), requires_grad=True)

    def work():
        projected.grad = None
        start = time.perf_counter()
        value = pytorch.masked_loss(projected)
        value.backward()
        return {"seconds": time.perf_counter() - start, "value": value.item()}

    serve(work)


def lars():
    """A step over res50."""
    torch.manual_seed(0)
    parameters = list(pytorch.Encoder("res50").parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimiser = pytorch.LoopLars(parameters, lr=1e-6)
    optimiser.step()

    def work():
        start = time.perf_counter()
        for _ in range(10):
            optimiser.step()
        return {"seconds": (time.perf_counter() - start) / 10}

    serve(work)


def index(directory):
    from torchvision.datasets import ImageFolder

    serve(lambda: {"files": len(ImageFolder(directory))})


# ---- augmentation ---------------------------------------------------------------------------------------------------

# The cases of benches/augment.rs: width, height, size of a view, strength, blur, greyscale images.
CASES = {
    "cifar10 32 px": (32, 32, 32, 0.5, False, False),
    "fashion_mnist 32 px": (32, 32, 32, 0.5, False, True),
    "imagenet 224 px of 500 x 375": (500, 375, 224, 1.0, True, False),
}
JPEG = "jpeg 500 x 333, 224 px"


def picture(width, height, seed, grey):
    """As benches/augment.rs has them: colour gradients, edges and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    base = np.stack([x * 255 // width, y * 255 // height, (x // 8 + y // 8) % 2 * 160], -1)
    levels = np.minimum(base + rng.integers(0, 32, base.shape), 255).astype(np.uint8)
    return levels[..., :1].repeat(3, -1) if grey else levels


def rate(work, items, seconds):
    """Of `work()`, which is worth so many `items`, after one that does not count."""
    work()
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        work()
        done += items
    return done / elapsed


def augment(case, seconds):
    """Views a second on one thread, or images with two views each from a JPEG file: `pil` by torchvision's transforms on PIL
    images, `v2` by torchvision.transforms.v2 on uint8 tensors, as its documentation advises."""
    from PIL import Image
    from torchvision.io import decode_jpeg
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if case == JPEG:
        jpeg = (pytorch.ROOT / "tests/golden/augment/photo.jpg").read_bytes()
        buffer = torch.frombuffer(bytearray(jpeg), dtype=torch.uint8)
        size, strength, blur, items = 224, 1.0, True, 1
        sources = {"pil": [lambda: Image.open(io.BytesIO(jpeg)).convert("RGB")], "v2": [lambda: decode_jpeg(buffer)]}
    else:
        width, height, size, strength, blur, grey = CASES[case]
        arrays, items = [picture(width, height, seed, grey) for seed in range(16)], 32
        tensor = lambda array: torch.from_numpy(array).permute(2, 0, 1).contiguous()
        ready = {"pil": [Image.fromarray(array) for array in arrays], "v2": [tensor(array) for array in arrays]}
        sources = {name: [lambda image=image: image for image in images] for name, images in ready.items()}

    def two_views(lib, images):
        transform = pytorch.recipe(lib, size, strength, blur)

        def work():
            for image in images:
                image = image()
                transform(image)
                transform(image)

        return rate(work, items, float(seconds))

    answer({name: two_views(lib, sources[name]) for name, lib in (("pil", transforms), ("v2", v2))})


# ---- evaluation -----------------------------------------------------------------------------------------------------

# Images in one pass through the trunk (src/train/features.rs), and in one step of the classifier (--fc-batch-size).
TRUNK_BATCH, FC_BATCH, FC_EPOCHS = 256, 4096, 100


def features_of(trunk, images, precision):
    """u8 [N, 32, 32, 3] to float32 [N, 512]."""
    mixed = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    with torch.no_grad(), mixed:
        batches = (batch.permute(0, 3, 1, 2).float().div_(255) for batch in images.split(TRUNK_BATCH))
        return torch.cat([trunk(batch).float() for batch in batches])


def loaded(checkpoint, directory, part):
    torch.manual_seed(1)
    state = torch.load(checkpoint, weights_only=True)["model_state_dict"]
    trunk = pytorch.Encoder("res10", state, head=False).eval().to(memory_format=torch.channels_last)
    images, labels = pytorch.fashion_images(Path(directory), part)
    return trunk, torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def features(checkpoint, directory, precision):
    trunk, images, _ = loaded(checkpoint, directory, "t10k")
    start = time.perf_counter()
    features_of(trunk, images, precision)
    answer({"images_per_s": len(images) / (time.perf_counter() - start)})


def linear(checkpoint, directory, precision):
    """One epoch as upstream's: the trunk on every batch, one step of the classifier, then the test images."""
    trunk, *train = loaded(checkpoint, directory, "train")
    _, *test = loaded(checkpoint, directory, "t10k")
    features_of(trunk, test[0][:TRUNK_BATCH], precision)
    start = time.perf_counter()
    head = torch.nn.Linear(512, 10)
    optimizer = torch.optim.SGD(head.parameters(), lr=1.6, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, FC_EPOCHS * -(-len(train[0]) // FC_BATCH))
    correct, seen, tested = 0, [], []
    for rows in torch.randperm(len(train[0])).split(FC_BATCH):
        found, labels = features_of(trunk, train[0][rows], precision), train[1][rows]
        logits = head(found)
        error = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        schedule.step()
        correct += (logits.argmax(1) == labels).sum().item()
        seen.append((found, labels))
    for images, labels in zip(test[0].split(FC_BATCH), test[1].split(FC_BATCH)):
        found = features_of(trunk, images, precision)
        with torch.no_grad():
            correct += (head(found).argmax(1) == labels).sum().item()
        tested.append(found)
    seconds = time.perf_counter() - start
    bank, known = (torch.cat(part) for part in zip(*seen))
    knn = nearest_neighbours(bank, known, torch.cat(tested), test[1])
    answer({"epoch_s": seconds, "images": [len(train[0]), len(test[0])], "knn": knn})


def nearest_neighbours(bank, known, tested, labels):
    """Percent, 20 cosine neighbours with one vote each."""
    bank, correct = torch.nn.functional.normalize(bank), 0
    for some, right in zip(tested.split(500), labels.split(500)):
        near = (torch.nn.functional.normalize(some) @ bank.T).topk(20).indices
        votes = torch.nn.functional.one_hot(known[near], 10).sum(1)
        correct += (votes.argmax(1) == right).sum().item()
    return 100 * correct / len(labels)


if __name__ == "__main__":
    works = {work.__name__: work for work in (steps, loss, lars, index, augment, linear, features)}
    if len(sys.argv) < 2 or sys.argv[1] not in works:
        sys.exit(__doc__)
    works[sys.argv[1]](*sys.argv[2:])
