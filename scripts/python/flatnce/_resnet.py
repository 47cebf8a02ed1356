"""The ResNet trunks of the program, under torchvision's parameter names (He et al., arXiv 1512.03385)."""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions, or with `bottleneck` 1x1, 3x3, 1x1, and the shortcut around them."""

    def __init__(self, inputs: int, planes: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * planes if bottleneck else planes
        if bottleneck:
            plan = [(inputs, planes, 1, 1), (planes, planes, 3, stride), (planes, outputs, 1, 1)]
        else:
            plan = [(inputs, planes, 3, stride), (planes, planes, 3, 1)]
        self.depth = len(plan)
        for number, (source, target, side, step) in enumerate(plan, 1):
            self.add_module(f"conv{number}", nn.Conv2d(source, target, side, step, side // 2, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(target))
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for number in range(1, self.depth + 1):
            out = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(out))
            if number < self.depth:
                out = out.relu()
        return (out + (x if self.downsample is None else self.downsample(x))).relu()


class Trunk(nn.Module):
    """Stem, four stages of `blocks` blocks, and the spatial mean: images `[M, 3, H, W]` to features `[M, D]`.

    With `small_stem` the first convolution is 3x3 with stride 1 and nothing is pooled before the stages.
    """

    def __init__(self, blocks: list[int], bottleneck: bool, small_stem: bool) -> None:
        super().__init__()
        side, stride = (3, 1) if small_stem else (7, 2)
        self.conv1 = nn.Conv2d(3, 64, side, stride, side // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = None if small_stem else nn.MaxPool2d(3, 2, 1)
        width = 64
        for stage, count in enumerate(blocks):
            layers = []
            for number in range(count):
                layers.append(Block(width, 64 << stage, 2 if stage and not number else 1, bottleneck))
                width = (64 << stage) * (4 if bottleneck else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.stages = len(blocks)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        if self.pool is not None:
            x = self.pool(x)
        for stage in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return torch.flatten(x.mean((2, 3)), 1)
