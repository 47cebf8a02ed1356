"""Writes the fixtures beside it with the installed PyTorch, and what they hold to expected.json.

    python make.py
"""

import argparse
import collections
import datetime
import io
import json
import pathlib
import tarfile
import zipfile

import numpy
import torch

from render import render

HERE = pathlib.Path(__file__).parent
EXPECTED = {}


def save(name, value, **options):
    torch.save(value, HERE / name, **options)
    expect(name, render(value))


def expect(name, rendered):
    """Values that another file has too are named by that file."""
    EXPECTED[name] = next((other for other, known in EXPECTED.items() if known == rendered), rendered)


class Lars(torch.optim.Optimizer):
    """State and groups as the LARS of the paper's code keeps them."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, dict(lr=lr, momentum=0.9, weight_decay=1e-6, eeta=1e-3, epoch=0))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                buffer = state.setdefault("momentum_buffer", torch.zeros_like(parameter))
                buffer.mul_(group["momentum"]).add_(parameter.grad, alpha=group["lr"])
                parameter.sub_(buffer)


def network():
    torch.manual_seed(7)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(16, 2)
    )


def training_state(make_optimizer, wrap=False):
    """What the paper's code saves after three steps; `wrap` gives the keys of a model on several GPUs."""
    model = network()
    optimizer = make_optimizer(model.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(5, 3, 4, 4)).square().sum().backward()
        optimizer.step()
        scheduler.step()
    saved = torch.nn.DataParallel(model) if wrap else model
    return {
        "batch_size": 512,
        "epoch": 26,
        "model": "res50",
        "model_state_dict": saved.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }


def views():
    base = torch.arange(24.0)
    shared = base.reshape(4, 6)
    tied = torch.nn.Parameter(torch.randn(3, 2))
    image = torch.randn(2, 3, 4, 5)
    bits = torch.randint(0, 256, (6, 4), dtype=torch.uint8)
    return collections.OrderedDict(
        base=base,
        rows=shared[1:3],
        columns=shared[:, 2:4],
        transposed=shared.t(),
        every_second=base[1::2],
        one=base[5],
        tied=tied,
        tied_again=tied,
        channels_last=image.to(memory_format=torch.channels_last),
        permuted=image.permute(3, 1, 0, 2),
        expanded=torch.tensor([1.0, 2.0]).expand(3, 2),
        bytes_strided=bits[::2, 1::2],
        doubles=torch.randn(3, 4, dtype=torch.float64).t(),
        halves=torch.randn(3, 4).half().t(),
        empty_view=base[24:],
        size_one=torch.randn(4, 1, 3).as_strided((4, 1, 3), (3, 77, 1)),
    )


def dtypes():
    values = {}
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        values[str(dtype)] = torch.tensor([0.1, -2.5, float("inf"), float("nan"), 1e-7], dtype=dtype)
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        info = torch.iinfo(dtype)
        values[str(dtype)] = torch.tensor([[info.min, info.max, 1]], dtype=dtype)
    values["bool"] = torch.tensor([True, False, True])
    values["scalar"] = torch.tensor(3)
    values["empty"] = torch.zeros(0, 3)
    values["empty_one"] = torch.zeros(2, 0, 5, dtype=torch.int16)
    return values


def objects():
    plain = torch.ones(2)
    plain.note = "a tensor with an attribute"
    with_state = torch.nn.Parameter(torch.ones(2))
    with_state.note = "a parameter with an attribute"
    shared_list = [1, 2]
    return {
        "args": argparse.Namespace(lr=0.6, dataset_name="cifar10", workers=40, gpus=[0, 1]),
        "numpy": [numpy.float64(0.1), numpy.float32(0.5), numpy.int64(-7), numpy.bool_(True), numpy.uint8(200)],
        "integers": [0, 255, 256, 65535, 65536, -1, -(2**31), 2**31, 2**63 - 1, -(2**63), 2**63, -(2**90), 10**30],
        "floats": [0.0, -0.0, 1e-300, float("inf"), float("-inf")],
        "flags": [True, False, None],
        "text": ["", "caf\u00e9 \U0001f40d", "a" * 300],
        "bytes": [b"", b"\x00\xff" * 4, bytearray(b"xy")],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "sets": [set(), {5}],
        "frozen": frozenset([4]),
        "shared": [shared_list, shared_list],
        "default": collections.defaultdict(list, {"a": [1]}),
        "counter": collections.Counter({"b": 2}),
        "queue": collections.deque([1, 2], maxlen=5),
        "pairs": {(1, 2): "tuple key", 3: "integer key", None: "none key"},
        "size": torch.Size([2, 3]),
        "dtype": torch.float16,
        "device": torch.device("cuda", 1),
        "tensor": plain,
        "parameter": with_state,
        "many": [None] * 1001,
        "table": {f"key{index}": True for index in range(1001)},
    }


def foreign_objects():
    """Objects without a counterpart: they are kept under the names of their classes."""
    return {
        "array": numpy.arange(3, dtype=numpy.uint32),
        "path": pathlib.PurePosixPath("/data/imagenet"),
        "date": datetime.datetime(2021, 7, 2),
        "complex": 1 + 2j,
        "layout": torch.strided,
        "weight": torch.ones(2),
    }


def repack(source, target, compression, change=lambda name, data: data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(HERE / source) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name), change(name, old.read(name)), compression)
    (HERE / target).write_bytes(buffer.getvalue())


def main():
    save("lars_multi_gpu.pth.tar", training_state(lambda p: Lars(p, 0.6), wrap=True))
    save("sgd.pth", training_state(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-4)))
    adam = training_state(lambda p: torch.optim.Adam(p, 1e-3))
    save("adam.pth", adam)
    save("adam_old_format.pth", adam, _use_new_zipfile_serialization=False)
    save("dtypes.pth", dtypes())
    save("dtypes_old_format.pth", dtypes(), _use_new_zipfile_serialization=False)
    torch.manual_seed(3)
    shared = views()
    save("views.pth", shared)
    save("views_old_format.pth", shared, _use_new_zipfile_serialization=False)
    save("objects.pth", objects())
    save("objects_protocol4.pth", objects(), pickle_protocol=4)
    save("objects_protocol5.pth", objects(), pickle_protocol=5)
    save("old_format_protocol4.pth", dtypes(), pickle_protocol=4, _use_new_zipfile_serialization=False)

    torch.save(foreign_objects(), HERE / "foreign_objects.pth")

    # A machine with a GPU writes the same file with another location.
    location_tag = torch.serialization.location_tag
    torch.serialization.location_tag = lambda storage: "cuda:0"
    save("cuda.pth", {"weight": torch.arange(3.0)})
    torch.serialization.location_tag = location_tag

    repack("adam.pth", "deflated.pth", zipfile.ZIP_DEFLATED)
    expect("deflated.pth", EXPECTED["adam.pth"])
    repack("cuda.pth", "big_endian.pth", zipfile.ZIP_STORED, lambda n, d: b"big" if n.endswith("byteorder") else d)
    repack("cuda.pth", "bzip2.pth", zipfile.ZIP_BZIP2)

    torch.save({"z": torch.ones(2, dtype=torch.complex64)}, HERE / "complex.pth")
    torch.save({"u": torch.ones(2, dtype=torch.uint16)}, HERE / "uint16.pth")
    torch.save({"s": torch.eye(2).to_sparse()}, HERE / "sparse.pth")
    torch.save({"n": torch._neg_view(torch.ones(2))}, HERE / "negated.pth")
    torch.save({"storage": torch.ones(2).untyped_storage()}, HERE / "storage.pth")
    torch.save(torch.nn.Linear(1, 1), HERE / "whole_model.pth")
    torch.jit.script(torch.nn.Linear(1, 1)).save(HERE / "torchscript.pth")
    with tarfile.open(HERE / "tar.pth", "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("storages"))

    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in EXPECTED.items())
    (HERE / "expected.json").write_text("{\n" + rows + "\n}\n")


if __name__ == "__main__":
    main()
