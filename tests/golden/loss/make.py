"""Gradients of both objectives with respect to raw features, by PyTorch's autograd
from the formulas in float64 (no code of the program's own way). Writes loss.json."""

import json
import torch

torch.manual_seed(3)
cases = []
for images, dim, temperature in [(2, 3, 0.5), (5, 8, 0.1), (16, 12, 0.07)]:
    raw = torch.randn(2 * images, dim, dtype=torch.float32).double().requires_grad_()
    z = raw / raw.norm(dim=1, keepdim=True)
    m = 2 * images
    s = z @ z.T
    case = {"images": images, "dim": dim, "temperature": temperature, "features": raw.flatten().tolist()}
    ces, flats, tops, ness = [], [], [], []
    for i in range(m):
        p = (i + images) % m
        d = torch.stack([(s[i, j] - s[i, p]) / temperature for j in range(m) if j not in (i, p)])
        v = torch.logsumexp(d, 0)
        ces.append(torch.log1p(v.exp()))
        flats.append(torch.exp(v - v.detach()))
        tops.append(int((d >= 0).sum()))
        w = torch.softmax(d, 0)
        ness.append((1 / (len(d) * (w * w).sum())).item())
    value = torch.stack(ces).mean()
    case["info_nce"] = torch.autograd.grad(value, raw, retain_graph=True)[0].flatten().tolist()
    case["flat_nce"] = torch.autograd.grad(torch.stack(flats).mean(), raw)[0].flatten().tolist()
    case["value"] = value.item()
    case["rank"] = tops
    case["ness"] = ness
    cases.append(case)
json.dump(cases, open(__file__.replace("make.py", "loss.json"), "w"))
