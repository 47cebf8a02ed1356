"""The encoder in PyTorch, with the names that the program's checkpoints have, and the optimiser of the recipe."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

BLOCKS = {
    "res10": (BasicBlock, [1, 1, 1, 1]),
    "res18": (BasicBlock, [2, 2, 2, 2]),
    "res50": (Bottleneck, [3, 4, 6, 3]),
}


class Normalise(nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("mean", "std"):
            self.register_buffer(name, torch.zeros(3))

    def forward(self, x):
        return (x - self.mean.view(1, 3, 1, 1)) / self.std.view(1, 3, 1, 1)


class Layers(nn.Module):
    """A projection head of two layers; the nesting makes the names."""

    def __init__(self, width, out):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))

    def forward(self, x):
        return self.net(x)


class Head(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.linear_layers = Layers(width, out)

    def forward(self, x):
        return self.linear_layers(x)


class Encoder(ResNet):
    """A ResNet for small images with normalisation in front and the projection head in place of `fc`."""

    def __init__(self, name, state, out=128):
        block, counts = BLOCKS[name]
        super().__init__(block, counts)
        width = self.fc.in_features
        self.normalize = Normalise()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.maxpool, self.fc = nn.Identity(), Head(width, out)
        for name in ("mean", "std"):
            state[f"normalize.{name}"] = state[f"normalize.{name}"].reshape(3)
        self.load_state_dict(state)

    def forward(self, x):
        return super().forward(self.normalize(x))


def pixels(views):
    """u8 [2B, S, S, 3] to float [2B, 3, S, S] in [0, 1]."""
    return views.permute(0, 3, 1, 2).contiguous().float() / 255


def similarities(unit):
    """Positive [2B] and negatives [2B, 2B - 2] of every anchor; `unit` is [view 1 of the batch; view 2 of the batch]."""
    count = len(unit)
    table = unit @ unit.T
    rows = torch.arange(count)
    partner = (rows + count // 2) % count
    others = torch.ones(count, count, dtype=torch.bool)
    others[rows, rows] = False
    others[rows, partner] = False
    return table[rows, partner], table[others].view(count, count - 2)


def infonce(positive, negatives, temperature):
    """As it is usually computed: cross-entropy over [positive, negatives]."""
    logits = torch.cat([positive[:, None], negatives], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


def flatnce(positive, negatives, temperature):
    v = torch.logsumexp((negatives - positive[:, None]) / temperature, 1)
    return torch.exp(v - v.detach()).mean()


class Lars:
    """Reference formulas: BatchNorm parameters and biases are neither decayed nor adapted."""

    def __init__(self, model, momentum=0.9, decay=1e-6, eeta=1e-3):
        self.momentum, self.decay, self.eeta = momentum, decay, eeta
        self.parameters = [(p, p.ndim > 1, torch.zeros_like(p)) for p in model.parameters()]

    @torch.no_grad()
    def step(self, lr):
        for parameter, adapted, buffer in self.parameters:
            update, rate = parameter.grad, lr
            if adapted:
                update = update + self.decay * parameter
                p, g = parameter.norm().item(), update.norm().item()
                rate *= self.eeta * p / g if p > 0 and g > 0 else 1.0
            buffer.mul_(self.momentum).add_(update, alpha=rate)
            parameter.sub_(buffer)
            parameter.grad = None


def scheduled(lr, step, warmup, total):
    """Linear warm-up, then a cosine down to 1e-6."""
    if step < warmup:
        return lr * step / warmup
    floor = 1e-6 / lr
    return lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))))
