"""Python values as JSON without loss, for comparison with what `torch_file` reads."""

import argparse
import collections
import struct

import numpy
import torch


def render(value):
    if value is None or isinstance(value, str) or type(value) is bool:
        return value
    if isinstance(value, numpy.generic):
        return render(value.item())
    if isinstance(value, torch.Tensor):
        flat = value.detach().contiguous().reshape(-1).view(torch.uint8) if value.numel() else torch.empty(0)
        data = bytes(flat.tolist()) if value.numel() else b""
        return {"tensor": str(value.dtype).removeprefix("torch."), "shape": list(value.shape), "data": data.hex()}
    if type(value) is int:
        return {"int": str(value)}
    if isinstance(value, float):
        return {"float": struct.pack(">d", value).hex()}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": value.hex()}
    if isinstance(value, (list, collections.deque)):
        return [render(item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [render(item) for item in value]}
    if isinstance(value, (set, frozenset)):
        return {"set": [render(item) for item in value]}
    if isinstance(value, dict):
        pairs = [[render(key), render(item)] for key, item in value.items()]
        if type(value) is collections.OrderedDict:
            return {"ordered": pairs, "attributes": render(value.__dict__ or None)}
        return {"dict": pairs}
    if isinstance(value, argparse.Namespace):
        return {"inert": "argparse.Namespace", "state": render(vars(value))}
    if isinstance(value, torch.dtype):
        return {"inert": str(value), "state": None}
    if isinstance(value, torch.device):
        return {"inert": "torch.device", "state": None}
    raise TypeError(f"no rendering for {type(value)}")
