"""A contrastive pre-training in PyTorch, its pieces: network, objectives, optimisers, images and their views.

Some come twice. In upstream's manner (main.py's): float32, PIL images through torchvision's transforms in worker processes,
the objective through matrices of all similarities that boolean masks take apart, LARS as a Python loop with a number fetched
for each parameter. And as who wants speed writes them: an objective without masks, LARS over lists of tensors, views rendered
by tensor operations on the device.
"""

import gzip
import math
from collections import OrderedDict
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


# ---- network --------------------------------------------------------------------------------------------------------


class Encoder(ResNet):
    """[N, 3, S, S] in [0, 1] to projections, or without `head` to features, under the names that the program's checkpoints
    have: normalisation, trunk with the stem for small images or ImageNet's, head of two layers. `state` is a checkpoint's."""

    def __init__(self, name, state=None, small=True, head=True, dim=128):
        super().__init__(*BLOCKS[name])
        self.normalize = nn.Module()
        for constant in ("mean", "std"):
            self.normalize.register_buffer(constant, torch.full((3,), 0.5))
        if small:
            self.conv1, self.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
        width = self.fc.in_features
        layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim))
        self.fc = nn.Sequential(OrderedDict(linear_layers=nn.Sequential(OrderedDict(net=layers)))) if head else nn.Identity()
        if state is not None:
            self.load_state_dict({key: value for key, value in state.items() if head or not key.startswith("fc.")})

    def forward(self, images):
        mean, std = (constant.view(1, 3, 1, 1) for constant in (self.normalize.mean, self.normalize.std))
        return super().forward((images - mean) / std)


# ---- objectives -----------------------------------------------------------------------------------------------------


def similarities(unit):
    """Positive [2B, 1] and negatives [2B, 2B - 2] of every anchor; `unit` is [first view of the batch; second view]."""
    views, device = len(unit), unit.device
    number = torch.arange(views // 2, device=device).repeat(2)
    same_image = (number[:, None] == number[None, :]).float()
    similarity = unit @ unit.T
    off_diagonal = ~torch.eye(views, dtype=torch.bool, device=device)
    same_image = same_image[off_diagonal].view(views, -1)
    similarity = similarity[off_diagonal].view(views, -1)
    return similarity[same_image.bool()].view(views, -1), similarity[~same_image.bool()].view(views, -1)


def infonce(positive, negatives, temperature):
    """As it is usually computed: cross-entropy over [positive, negatives]."""
    logits = torch.cat([positive, negatives], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def flatnce(positive, negatives, temperature):
    v = torch.logsumexp((negatives - positive) / temperature, 1)
    return torch.exp(v - v.detach()).mean()


def backward(encoder, images, temperature=0.1):
    """FlatNCE's gradients by the plain formulas; InfoNCE's value."""
    positive, negatives = similarities(F.normalize(encoder(images)))
    flatnce(positive, negatives, temperature).backward()
    return infonce(positive.detach(), negatives.detach(), temperature).item()


def masked_loss(projected, temperature=0.1):
    """FlatNCE in upstream's manner, with InfoNCE's value for the log."""
    positive, negatives = similarities(F.normalize(projected, dim=1))
    logits = (negatives - positive) / temperature
    v = torch.logsumexp(logits, dim=1, keepdim=True)
    flat = torch.exp(v - v.detach()).mean() - 1
    with_positive = torch.cat([torch.zeros_like(positive), logits], dim=1)
    return flat + F.cross_entropy(with_positive, torch.zeros(len(logits), dtype=torch.long, device=logits.device)).detach()


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


# ---- optimisers -----------------------------------------------------------------------------------------------------


class Lars:
    def __init__(self, parameters, lr, momentum=0.9, decay=1e-6, eeta=1e-3):
        self.parameters = [p for p in parameters if p.requires_grad]
        self.lr, self.momentum, self.decay, self.eeta = lr, momentum, decay, eeta

    def zero_grad(self):
        for p in self.parameters:
            p.grad = None


class LoopLars(Lars):
    """Parameter by parameter, fetching each trust ratio as a number; every parameter is adapted."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, lr)
        self.buffers = {}

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


class ListLars(Lars):
    """Over lists of tensors; BatchNorm and biases are left out of decay and adaptation, as is usual."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, lr)
        self.adapted = [p for p in self.parameters if p.dim() > 1]
        self.plain = [p for p in self.parameters if p.dim() <= 1]
        self.buffers = [[torch.zeros_like(p) for p in group] for group in (self.adapted, self.plain)]

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


def scheduled(lr, step, warmup, total):
    """Linear warm-up, then a cosine down to 1e-6."""
    if step < warmup:
        return lr * step / warmup
    floor = 1e-6 / lr
    return lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))))


# ---- images and views -----------------------------------------------------------------------------------------------


def fashion(data=ROOT / "datasets"):
    """Where Fashion-MNIST lies, and our flags for it: below `data` or where Debian's package puts it, else the sample."""
    for place in (data / "fashion_mnist", data / "fashion-mnist", Path("/usr/share/datasets/fashion-mnist")):
        if any(place.glob("train-images-idx3-ubyte*")):
            return place, {"dataset_name": "fashion_mnist", "data": place.parent}
    return ROOT / "datasets/fashion_mnist_mini", {"dataset_name": "fashion_mnist_mini"}


def fashion_images(home, part="train"):
    """u8 [N, 32, 32, 3], padded with black as our program does, and labels [N] of `train` or `t10k`."""

    def values(name, header):
        plain = home / f"{part}-{name}-ubyte"
        raw = plain.read_bytes() if plain.exists() else gzip.decompress((home / f"{plain.name}.gz").read_bytes())
        return np.frombuffer(raw, np.uint8, offset=header)

    images = np.pad(values("images-idx3", 16).reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)))
    return images[..., None].repeat(3, -1), values("labels-idx1", 8)


def pixels(images):
    """u8 [N, S, S, 3] to float [N, 3, S, S] in [0, 1]."""
    return images.permute(0, 3, 1, 2).contiguous().float() / 255


def recipe(lib, size, strength, blur):
    """The paper's augmentation by torchvision's transforms of either generation; they share the names."""
    steps = [
        lib.RandomResizedCrop(size, antialias=True),
        lib.RandomHorizontalFlip(),
        lib.RandomApply([lib.ColorJitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)], p=0.8),
        lib.RandomGrayscale(p=0.2),
    ]
    if blur:
        steps.append(lib.RandomApply([lib.GaussianBlur(int(0.1 * size) | 1)], p=0.5))
    return lib.Compose([*steps, transforms.ToTensor() if lib is transforms else lib.ToDtype(torch.float32, scale=True)])


class TwoViews(torch.utils.data.Dataset):
    """The recipe for small images, on PIL images."""

    def __init__(self, images):
        from PIL import Image

        self.images, self.recipe = [Image.fromarray(image) for image in images], recipe(transforms, 32, 0.5, False)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index]
        return self.recipe(image), self.recipe(image)


def uniform(count, low, high, device):
    return torch.rand(count, device=device) * (high - low) + low


def crops(images, size):
    """A random resized crop and flip of each image: float [B, 3, size, size] from u8 [B, 3, H, W]."""
    count, device = len(images), images.device
    area = uniform(count, 0.08, 1.0, device)
    ratio = torch.exp(uniform(count, math.log(3 / 4), math.log(4 / 3), device))
    width, height = torch.sqrt(area * ratio).clamp(max=1), torch.sqrt(area / ratio).clamp(max=1)
    x = uniform(count, -1, 1, device) * (1 - width)
    y = uniform(count, -1, 1, device) * (1 - height)
    width = torch.where(torch.rand(count, device=device) < 0.5, -width, width)
    zero = torch.zeros_like(x)
    theta = torch.stack([torch.stack([width, zero, x], 1), torch.stack([zero, height, y], 1)], 1)
    grid = F.affine_grid(theta, (count, 3, size, size), align_corners=False)
    return F.grid_sample(images.float() / 255, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def grey_of(x):
    return 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:3]


def rotate_hue(x, turns):
    """Through HSV."""
    high, low = x.amax(1), x.amin(1)
    spread = (high - low).clamp(min=1e-8)
    r, g, b = x.unbind(1)
    hue = torch.where(high == r, (g - b) / spread, torch.where(high == g, 2 + (b - r) / spread, 4 + (r - g) / spread))
    hue = (hue / 6 + turns.view(-1, 1, 1)) % 1
    saturation = (high - low) / high.clamp(min=1e-8)

    def channel(offset):
        k = (offset + hue * 6) % 6
        return high - high * saturation * torch.minimum(k, 4 - k).clamp(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], 1)


def jittered(x, strength):
    count, device = len(x), x.device
    factor = lambda: uniform(count, max(0, 1 - 0.8 * strength), 1 + 0.8 * strength, device).view(-1, 1, 1, 1)
    out = (x * factor()).clamp(0, 1)
    mean = grey_of(out).mean((1, 2, 3), keepdim=True)
    out = (mean + factor() * (out - mean)).clamp(0, 1)
    grey = grey_of(out)
    out = (grey + factor() * (out - grey)).clamp(0, 1)
    out = rotate_hue(out, uniform(count, -0.2 * strength, 0.2 * strength, device))
    return torch.where(torch.rand(count, 1, 1, 1, device=device) < 0.8, out, x)


def blurred(x, kernel):
    count, device, size = len(x), x.device, x.shape[-1]
    sigma = uniform(count, 0.1, 2.0, device).view(-1, 1)
    offsets = torch.arange(kernel, device=device) - kernel // 2
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    weights = (weights / weights.sum(1, keepdim=True)).view(count, 1, 1, 1, kernel)
    out = F.pad(x, [kernel // 2] * 4, mode="reflect")
    # A convolution with weights of each image's own would be one of 3 B groups, which cuDNN is slow at; a sum of shifted
    # images the compiler makes one kernel a direction.
    out = sum(weights[..., tap] * out[..., tap : tap + size] for tap in range(kernel))
    out = sum(weights[..., tap] * out[..., tap : tap + size, :] for tap in range(kernel))
    return torch.where(torch.rand(count, 1, 1, 1, device=device) < 0.5, out, x)


def views(images, size, strength, blur):
    """[2B, 3, size, size] of u8 images [B, 3, H, W]. Each view has its own crop, factors and sigma; one order of the colour
    operations for all, which spares what each view's own order costs."""
    x = crops(images.repeat(2, 1, 1, 1), size)
    if strength:
        x = jittered(x, strength)
    x = torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.2, grey_of(x).expand_as(x), x)
    if blur:
        x = blurred(x, max(3, size // 10 | 1))
    return x.contiguous(memory_format=torch.channels_last)
