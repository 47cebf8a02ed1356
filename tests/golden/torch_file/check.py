"""Loads files that `torch_file` wrote, with `weights_only=True`, and prints what they hold (see render.py).

    python check.py FILE...             values, read plainly and by memory map with computed offsets
    python check.py FILE:sgd FILE:adam  also continues training from them
"""

import json
import sys
import warnings

import torch
from torch.utils.serialization import config

from make import network
from render import render


def resume(checkpoint, kind):
    model = network()
    model.load_state_dict(checkpoint["model_state_dict"], strict=True)
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[kind](model.parameters(), 1.0)
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    scheduler.load_state_dict(checkpoint["scheduler"])
    assert scheduler.last_epoch == 3, scheduler.last_epoch
    model(torch.randn(5, 3, 4, 4)).sum().backward()
    optimizer.step()
    scheduler.step()


def load(path):
    config.load.calculate_storage_offsets = False
    value = torch.load(path, weights_only=True)
    config.load.calculate_storage_offsets = True
    mapped = torch.load(path, weights_only=True, mmap=True)
    assert render(mapped) == render(value), "memory-mapped values differ"
    return value


def main():
    warnings.simplefilter("error")
    values = []
    for argument in sys.argv[1:]:
        path, _, kind = argument.partition(":")
        value = load(path)
        values.append(render(value))
        if kind:
            resume(value, kind)
    print(json.dumps(values))


if __name__ == "__main__":
    main()
