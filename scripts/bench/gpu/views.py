"""Views rendered by tensor operations in PyTorch: what the peers of prove_gpu.sh train on.

Each view has its own crop, factors and sigma; one order of the colour operations for all, which spares what each view's own
order costs.
"""

import math

import torch
import torch.nn.functional as F


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
    """[2B, 3, size, size] of u8 images [B, 3, H, W]."""
    x = crops(images.repeat(2, 1, 1, 1), size)
    if strength:
        x = jittered(x, strength)
    x = torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.2, grey_of(x).expand_as(x), x)
    if blur:
        x = blurred(x, max(3, size // 10 | 1))
    return x.contiguous(memory_format=torch.channels_last)
