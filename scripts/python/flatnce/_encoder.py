"""Encoders from the program's files: its checkpoints (`.pth.tar`), and what `flatnce export` writes."""

import json
import os
import re
import struct

import torch
from torch import Tensor, nn

from ._resnet import Trunk

# Longer headers are no description of a ResNet.
_LONGEST_HEADER = 1 << 27
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

Path = str | os.PathLike[str]


class Encoder(nn.Module):
    """A ResNet trunk with the normalisation of its images inside.

    Called with images `[M, 3, H, W]` in [0, 1] it gives features `[M, features_dim]`: what the program's linear
    evaluation and `flatnce embed` use.
    """

    features_dim: int
    """Columns of the features: 512, or 2048 from res50 on."""

    def __init__(self, trunk: Trunk, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.trunk = trunk
        self.features_dim = trunk.width
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", mean.float().reshape(1, 3, 1, 1))
        self.register_buffer("std", std.float().reshape(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.trunk((images - self.mean) / self.std)
        return features


def load_encoder(path: Path) -> Encoder:
    """The pre-trained trunk of a file, on the CPU and in evaluation mode; the head is left out.

    `path` is a checkpoint that the program wrote (`checkpoint_0100.pth.tar`), or what
    `flatnce export --format safetensors` made of one. Depth, stem and normalisation are those of the file. For weights
    of other programs, and for files without a normalisation, `flatnce export` makes such a file.

    Every tensor of the trunk has to be there, once and in its shape. Nothing in the file is executed.

    Errors: OSError where the file cannot be read; ValueError, with the file's name, where it holds something else.
    """
    name = os.fspath(path)
    with open(name, "rb") as file:
        head = file.read(9)
    try:
        is_safetensors = len(head) == 9 and head[8:] == b"{" and head[4:8] == bytes(4)
        state = _read_safetensors(name) if is_safetensors else _read_checkpoint(name)
        return _build(state)
    except ValueError as error:
        raise ValueError(f"{name} cannot be loaded: {error}") from None


def _build(state: dict[str, Tensor]) -> Encoder:
    state = {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}
    mean, std = (state.pop(f"normalize.{part}", None) for part in ("mean", "std"))
    if mean is None or std is None or mean.shape != (3,) or std.shape != (3,):
        raise ValueError("it has no normalisation of 3 channels; make it with flatnce export --format safetensors")
    first = state.get("conv1.weight")
    blocks = [_blocks(state, stage) for stage in range(1, 5)]
    if first is None or not all(blocks):
        raise ValueError("it holds no ResNet under torchvision's names; flatnce inspect lists what is in it")
    trunk = Trunk(blocks, "layer1.0.conv3.weight" in state, first.shape[-1] == 3)
    try:
        trunk.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    wrong = [key for key, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if wrong:
        raise ValueError(f"{wrong[0]} holds a number that is not finite")
    return Encoder(trunk, mean, std).eval()


def _blocks(state: dict[str, Tensor], stage: int) -> int:
    """How many blocks a stage has, by its names."""
    found = (re.match(rf"layer{stage}\.(\d{{1,3}})\.", key) for key in state)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _read_checkpoint(path: str) -> dict[str, Tensor]:
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"it is no checkpoint of flatnce, or damaged ({reason})") from None
    state = saved.get("model_state_dict") if isinstance(saved, dict) else None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError("it has no model_state_dict; flatnce export reads the weights of other programs")
    # --checkpoint-prefix writes this spelling, and DataParallel.
    return {key.removeprefix("module."): tensor for key, tensor in state.items()}


def _read_safetensors(path: str) -> dict[str, Tensor]:
    """The tensors, and the normalisation out of the notes."""
    damaged = "it is a damaged safetensors file; copy or export it again"
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _LONGEST_HEADER:
            raise ValueError(damaged)
        text, data = file.read(length), bytearray(file.read())
    try:
        header = json.loads(text)
        notes = header.pop("__metadata__", {})
        state = {name: _tensor(data, **about) for name, about in header.items()}
        for part in ("mean", "std"):
            if f"normalize_{part}" in notes:
                state[f"normalize.{part}"] = torch.tensor(json.loads(notes[f"normalize_{part}"]), dtype=torch.float32)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{damaged} ({error})") from None
    return state


def _tensor(data: bytearray, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    begin, end = data_offsets
    if not 0 <= begin <= end <= len(data):
        raise ValueError("a tensor lies behind the end of the file")
    if begin == end:
        return torch.empty(shape, dtype=_TYPES[dtype])
    # Copied: a tensor may begin where its type cannot be read from.
    return torch.frombuffer(data[begin:end], dtype=_TYPES[dtype]).reshape(shape)
