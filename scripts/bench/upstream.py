"""The pieces of a contrastive pre-training in PyTorch, written for the comparison, in two manners.

`upstream` does what upstream's main.py does: everything in float32, PIL images through torchvision's transforms in
worker processes, the objective through matrices of all similarities that boolean masks take apart, LARS as a Python
loop over parameters with a number fetched for each.

`tuned` is what PyTorch offers who wants speed: channels-last, bfloat16 autocast, torch.compile, the objective without
masks, LARS over lists of tensors (torch._foreach), workers that stay.
"""

import gzip
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import transforms
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = {
    "res10": (BasicBlock, [1, 1, 1, 1]),
    "res18": (BasicBlock, [2, 2, 2, 2]),
    "res50": (Bottleneck, [3, 4, 6, 3]),
}
MEAN, STD = 0.5, 0.5


def fashion_home():
    """Where Fashion-MNIST lies (the whole set, else the sample in the repository), and our name for it."""
    for place in [Path("/usr/share/datasets/fashion-mnist"), ROOT / "datasets/fashion_mnist"]:
        if (place / "train-images-idx3-ubyte.gz").exists() or (place / "train-images-idx3-ubyte").exists():
            return place, "fashion_mnist"
    return ROOT / "datasets/fashion_mnist_mini", "fashion_mnist_mini"


def fashion_images():
    """u8 [N, 32, 32, 3], padded with black: the images that our program trains on."""
    home, _ = fashion_home()
    file = home / "train-images-idx3-ubyte.gz"
    raw = gzip.decompress(file.read_bytes()) if file.exists() else file.with_suffix("").read_bytes()
    count = int.from_bytes(raw[4:8], "big")
    images = np.frombuffer(raw, np.uint8, offset=16).reshape(count, 28, 28)
    return np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None].repeat(3, -1)


class TwoViews(torch.utils.data.Dataset):
    """The paper's recipe for small images, on PIL images."""

    def __init__(self, images):
        from PIL import Image

        self.images = [Image.fromarray(image) for image in images]
        strength = 0.5
        jitter = transforms.ColorJitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
        self.recipe = transforms.Compose(
            [
                transforms.RandomResizedCrop(32),
                transforms.RandomHorizontalFlip(),
                transforms.RandomApply([jitter], p=0.8),
                transforms.RandomGrayscale(p=0.2),
                transforms.ToTensor(),
            ]
        )

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index]
        return self.recipe(image), self.recipe(image)


def loader(images, batch, workers, stay):
    return torch.utils.data.DataLoader(
        TwoViews(images),
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=stay and workers > 0,
    )


class Encoder(nn.Module):
    """A ResNet with a projection head of two layers, its stem that for small images or ImageNet's; input in [0, 1]."""

    def __init__(self, name, dim=128, small=True):
        super().__init__()
        trunk = ResNet(*BLOCKS[name])
        if small:
            trunk.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            trunk.maxpool = nn.Identity()
        width = trunk.fc.in_features
        trunk.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim))
        self.trunk = trunk

    def forward(self, images):
        return self.trunk((images - MEAN) / STD)


def masked_loss(projected, temperature=0.1):
    """FlatNCE through matrices of all pairs taken apart by boolean masks, with InfoNCE's value for the log."""
    views, device = projected.shape[0], projected.device
    number = torch.arange(views // 2, device=device).repeat(2)
    same_image = (number[:, None] == number[None, :]).float()
    unit = F.normalize(projected, dim=1)
    similarity = unit @ unit.T
    off_diagonal = ~torch.eye(views, dtype=torch.bool, device=device)
    same_image = same_image[off_diagonal].view(views, -1)
    similarity = similarity[off_diagonal].view(views, -1)
    positive = similarity[same_image.bool()].view(views, -1)
    negative = similarity[~same_image.bool()].view(views, -1)
    logits = (negative - positive) / temperature
    v = torch.logsumexp(logits, dim=1, keepdim=True)
    flat = torch.exp(v - v.detach()).mean() - 1
    with_positive = torch.cat([torch.zeros(views, 1, device=device), logits], dim=1)
    return flat + F.cross_entropy(with_positive, torch.zeros(views, dtype=torch.long, device=device)).detach()


def lean_loss(projected, temperature=0.1):
    """The same objective without masks: the diagonal and the positives are set to minus infinity."""
    views, device = projected.shape[0], projected.device
    unit = F.normalize(projected.float(), dim=1)
    row = torch.arange(views, device=device)
    partner = (row + views // 2) % views
    logits = unit @ unit.T / temperature
    positive = logits[row, partner]
    nothing = logits.new_full((), -math.inf)
    logits = logits.index_put((row, row), nothing).index_put((row, partner), nothing)
    v = torch.logsumexp(logits, dim=1) - positive
    return torch.exp(v - v.detach()).mean() - 1 + F.softplus(v.detach()).mean()


class LoopLars:
    """LARS, parameter by parameter, fetching each trust ratio as a number; every parameter is adapted."""

    def __init__(self, parameters, lr, momentum=0.9, decay=1e-6, eeta=1e-3):
        self.parameters = [p for p in parameters if p.requires_grad]
        self.lr, self.momentum, self.decay, self.eeta = lr, momentum, decay, eeta
        self.buffers = {}

    def zero_grad(self):
        for p in self.parameters:
            p.grad = None

    def step(self):
        for index, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            value, gradient = parameter.data, parameter.grad.data
            gradient += self.decay * value
            size, slope = torch.norm(value), torch.norm(gradient)
            one = torch.ones((), device=value.device)
            inner = torch.where(slope.ge(0), self.eeta * size / slope, one)
            trust = torch.where(size.ge(0), inner, one).item()
            buffer = self.buffers.setdefault(index, torch.zeros_like(value))
            buffer.mul_(self.momentum).add_(gradient, alpha=self.lr * trust)
            parameter.data.add_(-buffer)


class ListLars:
    """The same over lists of tensors; BatchNorm and biases are left out of decay and adaptation, as is usual."""

    def __init__(self, parameters, lr, momentum=0.9, decay=1e-6, eeta=1e-3):
        self.parameters = [p for p in parameters if p.requires_grad]
        self.adapted = [p for p in self.parameters if p.dim() > 1]
        self.plain = [p for p in self.parameters if p.dim() <= 1]
        self.lr, self.momentum, self.decay, self.eeta = lr, momentum, decay, eeta
        self.buffers = [[torch.zeros_like(p) for p in group] for group in (self.adapted, self.plain)]

    def zero_grad(self):
        for p in self.parameters:
            p.grad = None

    @torch.no_grad()
    def step(self):
        gradients = [p.grad for p in self.adapted]
        torch._foreach_add_(gradients, self.adapted, alpha=self.decay)
        sizes, slopes = torch._foreach_norm(self.adapted), torch._foreach_norm(gradients)
        trusts = torch.stack(sizes) / torch.stack(slopes) * self.eeta
        trusts = torch.where(torch.isfinite(trusts) & (trusts > 0), trusts, torch.ones_like(trusts))
        scales = trusts * self.lr
        # Numbers are cheaper on the CPU; on a GPU fetching them would wait for it, and a compiler stops at them.
        as_tensors = scales.is_cuda or torch.compiler.is_compiling()
        torch._foreach_mul_(gradients, list(scales.unbind()) if as_tensors else scales.tolist())
        rest = [p.grad for p in self.plain]
        torch._foreach_mul_(rest, self.lr)
        for parameters, updates, buffers in zip((self.adapted, self.plain), (gradients, rest), self.buffers):
            torch._foreach_mul_(buffers, self.momentum)
            torch._foreach_add_(buffers, updates)
            torch._foreach_sub_(parameters, buffers)
