"""PyTorch's side of tests/interchange.rs: reads a checkpoint as upstream's scripts would, strictly, and
writes one as upstream's scripts do.

    interchange.py read CHECKPOINT OPTIMIZER    prints the outputs of the network on a formula's images
    interchange.py write CHECKPOINT             a run of 6 steps, by Adam, with the prefix `module.`
"""

import json
import sys
import torch
import torchvision


class Head(torch.nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.linear_layers = torch.nn.Module()
        self.linear_layers.net = torch.nn.Sequential(
            torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, out)
        )

    def forward(self, x):
        return self.linear_layers.net(x)


class Normalize(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.full((3,), 0.5))
        self.register_buffer("std", torch.full((3,), 0.5))

    def forward(self, x):
        return (x - self.mean.view(1, 3, 1, 1)) / self.std.view(1, 3, 1, 1)


class Net(torchvision.models.ResNet):
    """The paper's res10 with the stem for small images and the normalisation inside."""

    def __init__(self, out):
        super().__init__(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
        self.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.maxpool = torch.nn.Identity()
        self.fc = Head(512, out)
        self.normalize = Normalize()

    def forward(self, x):
        return super().forward(self.normalize(x))


def images():
    i = torch.arange(4 * 3 * 16 * 16, dtype=torch.float64)
    return (0.5 + 0.5 * torch.sin(0.37 * i)).float().reshape(4, 3, 16, 16)


def read(path, name):
    saved = torch.load(path, map_location="cpu", weights_only=True)
    net = Net(128)
    net.load_state_dict(saved["model_state_dict"], strict=True)
    kinds = {"adam": torch.optim.Adam, "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9)}
    if name in kinds:
        optimizer = kinds[name](net.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["scheduler"])
        for index, parameter in enumerate(net.parameters()):
            for entry in optimizer.state[parameter].values():
                assert entry.dim() == 0 or entry.shape == parameter.shape, index
        net.train()
        net(images()).square().mean().backward()
        optimizer.step()
        schedule.step()
        net.load_state_dict(saved["model_state_dict"], strict=True)
    else:
        order = [tuple(p.shape) for p in net.parameters()]
        shapes = [tuple(saved["optimizer"]["state"][i]["momentum_buffer"].shape) for i in range(len(order))]
        assert shapes == order
    net.eval()
    with torch.no_grad():
        out = net(images())
    print(json.dumps({"outputs": out.flatten().tolist(), "epoch": saved["epoch"], "model": saved["model"],
                      "batch_size": saved["batch_size"], "last_epoch": saved["scheduler"]["last_epoch"]}))


def write(path):
    torch.manual_seed(5)
    net = Net(128)
    wrapped = torch.nn.DataParallel(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-6)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    for _ in range(6):
        optimizer.zero_grad()
        net(images()).square().mean().backward()
        optimizer.step()
        schedule.step()
    # `epoch` is the number of epochs asked for, as upstream has it.
    torch.save({"batch_size": 8, "epoch": 100, "model": "res10", "model_state_dict": wrapped.state_dict(),
                "optimizer": optimizer.state_dict(), "scheduler": schedule.state_dict()}, path)


if __name__ == "__main__":
    {"read": read, "write": write}[sys.argv[1]](*sys.argv[2:])
