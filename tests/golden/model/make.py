"""Outputs of torchvision's ResNets, in the paper's arrangement (normalisation in front, both stems,
projection head in place of fc), with weights and inputs given by formulas. Writes model.json."""

import json
import math
import torch
import torchvision

MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
OUT = 16


def formula(n, salt, scale, offset=0.0):
    i = torch.arange(n, dtype=torch.float64)
    noise = torch.sin(12.9898 * i + 78.233 * salt) * 43758.5453  # its fraction looks random
    return (offset + scale * (2 * (noise - noise.floor()) - 1)).float()


class Net(torch.nn.Module):
    def __init__(self, block, layers, small, head):
        super().__init__()
        body = torchvision.models.ResNet(block, layers)
        if small:
            body.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
            body.maxpool = torch.nn.Identity()
        width = body.fc.in_features
        net = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, OUT))
        if head == "linear":
            net = torch.nn.Sequential(torch.nn.Linear(width, OUT), torch.nn.BatchNorm1d(OUT))
        body.fc = torch.nn.Module()
        body.fc.linear_layers = torch.nn.Module()
        body.fc.linear_layers.net = net
        body.fc.forward = lambda x: x
        self.body = body
        normalize = torch.nn.Module()
        normalize.register_buffer("mean", torch.tensor(MEAN))
        normalize.register_buffer("std", torch.tensor(STD))
        self.normalize = normalize

    def entries(self):
        """State in upstream's order: normalize first, then torchvision's."""
        for name, tensor in self.normalize.state_dict(keep_vars=True).items():
            yield "normalize." + name, tensor
        yield from self.body.state_dict(keep_vars=True).items()

    def fill(self):
        with torch.no_grad():
            for salt, (name, t) in enumerate(self.entries()):
                n = t.numel()
                if name.startswith("normalize") or name.endswith("num_batches_tracked"):
                    continue
                if t.dim() == 4:
                    value = formula(n, salt, 2 / math.sqrt(t.shape[0] * t.shape[2] * t.shape[3]))
                elif t.dim() == 2:
                    value = formula(n, salt, 1 / math.sqrt(t.shape[1]))
                elif name.endswith("running_var"):
                    value = formula(n, salt, 0.5, 1.0)
                elif name.endswith("weight"):
                    value = formula(n, salt, 0.3, 0.8)
                else:
                    value = formula(n, salt, 0.1)
                t.copy_(value.reshape(t.shape))

    def forward(self, x):
        x = (x - self.normalize.mean.view(1, 3, 1, 1)) / self.normalize.std.view(1, 3, 1, 1)
        hidden = self.body(x)
        return hidden, self.body.fc.linear_layers.net(hidden)


Basic, Bottle = torchvision.models.resnet.BasicBlock, torchvision.models.resnet.Bottleneck
KINDS = {
    "res10": (Basic, [1, 1, 1, 1]),
    "res18": (Basic, [2, 2, 2, 2]),
    "res34": (Basic, [3, 4, 6, 3]),
    "res50": (Bottle, [3, 4, 6, 3]),
    "res101": (Bottle, [3, 4, 23, 3]),
    "res152": (Bottle, [3, 8, 36, 3]),
}
torch.set_num_threads(1)
cases = []
for depth, (block, layers) in KINDS.items():
    for stem, side in [("small", 16), ("imagenet", 64)]:
        for head in ["nonlinear", "linear"] if depth == "res10" else ["nonlinear"]:
            net = Net(block, layers, stem == "small", head)
            net.fill()
            images = 4
            x = (formula(images * 3 * side * side, 5, 0.5, 0.5)).reshape(images, 3, side, side)
            case = {"depth": depth, "stem": stem, "side": side, "head": head, "images": images}
            if depth == "res50" and stem == "small" or depth == "res10" and stem == "small" and head == "nonlinear":
                case["names"] = [[n, list(t.shape)] for n, t in net.entries()]
            with torch.no_grad():
                for mode in ["eval", "train", "after"]:  # after: eval with the statistics that train updated
                    net.train(mode == "train")
                    hidden, projected = net(x)
                    case[mode] = {"hidden": hidden[:, ::64].flatten().tolist(), "projected": projected.flatten().tolist()}
            cases.append(case)
json.dump(cases, open(__file__.replace("make.py", "model.json"), "w"))
