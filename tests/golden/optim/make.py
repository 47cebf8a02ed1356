"""Twenty steps of SGD, Adam (torch.optim) and LARS (written here from the formula in the paper's
terms) in float32 on two parameters with gradients given by a formula. Writes optim.json."""

import json
import math
import torch

SHAPES = {"conv.weight": (3, 2, 2, 2), "fc.bias": (5,)}
LRS = [0.1 * (1 + math.cos(k / 7)) for k in range(20)]


def initial(shape, salt):
    n = math.prod(shape)
    return torch.tensor([math.sin(0.7 * i + salt) for i in range(n)], dtype=torch.float64).float().reshape(shape)


def gradient(value, step, salt):
    """A gradient that depends on the parameter, so that errors would grow."""
    n = value.numel()
    noise = torch.tensor([math.cos(0.3 * i + step + salt) for i in range(n)], dtype=torch.float64).float()
    return 0.5 * value + noise.reshape(value.shape)


def run(name, decay, momentum, exclude):
    parameters = [torch.nn.Parameter(initial(s, k)) for k, s in enumerate(SHAPES.values())]
    if name == "sgd":
        optimizer = torch.optim.SGD(parameters, lr=0.1, weight_decay=decay, momentum=momentum)
    elif name == "adam":
        optimizer = torch.optim.Adam(parameters, lr=0.1, weight_decay=decay)
    buffers = [torch.zeros_like(p) for p in parameters]
    for step, lr in enumerate(LRS):
        for k, p in enumerate(parameters):
            p.grad = gradient(p.detach(), step, k)
        if name != "lars":
            optimizer.param_groups[0]["lr"] = lr
            optimizer.step()
            continue
        for k, p in enumerate(parameters):
            with torch.no_grad():
                if exclude and k == 1:  # the bias
                    update = lr * p.grad
                else:
                    g = p.grad + decay * p
                    norms = p.norm().item(), g.norm().item()
                    trust = 1e-3 * norms[0] / norms[1] if min(norms) > 0 else 1.0
                    update = lr * trust * g
                buffers[k] = momentum * buffers[k] + update
                p -= buffers[k]
    return [p.detach().flatten().tolist() for p in parameters]


cases = []
for name, decay, momentum, exclude in [
    ("sgd", 0.0, 0.9, False),
    ("sgd", 0.01, 0.0, False),
    ("sgd", 0.01, 0.9, False),
    ("adam", 0.0, 0.9, False),
    ("adam", 0.01, 0.9, False),
    ("lars", 1e-6, 0.9, True),
    ("lars", 0.01, 0.9, False),
]:
    cases.append({"name": name, "weight_decay": decay, "momentum": momentum, "exclude": exclude,
                  "result": run(name, decay, momentum, exclude)})
json.dump({"lrs": LRS, "cases": cases}, open(__file__.replace("make.py", "optim.json"), "w"))
