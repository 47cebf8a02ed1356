"""Twenty steps of pre-training by plain PyTorch, from the initial weights and the views that the program exports: both
objectives by autograd, torch.optim's SGD and Adam, LARS from its paper. Writes curve.json.

    make.py target/release/flatnce             the numbers, in float64: the same ones on every machine
    make.py target/release/flatnce --spread    how far PyTorch in float32 is from them, on this machine in several ways

Each number of a step is of the batch before the step's update. The program is float32: what `--spread` prints is what
tests/golden_curve.rs must allow."""

import json
import math
import pathlib
import subprocess
import sys
import tempfile

import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file

SEED, BATCH, BATCHES, EPOCHS, WARMUP = 7, 16, 5, 4, 1
DATA = ["--dataset-name=fashion_mnist_mini", f"--train-images={BATCH * BATCHES}", "--image-size=16", f"--seed={SEED}"]
SHARED = [f"--batch-size={BATCH}", "--model=res10", f"--epochs={EPOCHS}", f"--warmup-epochs={WARMUP}", "--precision=fp32",
          "--device=cpu", "--knn-every=0", "--log-every=1"]
# Every pair of objective, temperature and optimiser is in one of them. The decay moves weights as much as the gradient
# does. Rates are small: a ReLU that rounding flips changes a gradient by some 1e-4, and training makes that grow, so that
# at a usual rate nothing but chaos could be compared after twenty steps.
RUNS = [
    {"clr": "flatclr", "temperature": 0.1, "optimizer": "lars", "lr": 0.01, "weight-decay": 0.05, "momentum": 0.9},
    {"clr": "simclr", "temperature": 0.5, "optimizer": "lars", "lr": 0.02, "weight-decay": 0.05, "momentum": 0.8,
     "lars-exclude": "none"},
    {"clr": "flatclr", "temperature": 0.5, "optimizer": "sgd", "lr": 0.0002, "weight-decay": 0.1, "momentum": 0.9},
    {"clr": "simclr", "temperature": 0.1, "optimizer": "sgd", "lr": 0.00003, "weight-decay": 0.1, "momentum": 0.5},
    {"clr": "flatclr", "temperature": 0.1, "optimizer": "adam", "lr": 0.00001, "weight-decay": 0.1},
    {"clr": "simclr", "temperature": 0.5, "optimizer": "adam", "lr": 0.00003, "weight-decay": 0.1},
]
# Anchors whose positive and hardest negative are so near may rank either way in float32.
NEAR = 1e-3


class Net(torchvision.models.ResNet):
    """The paper's res10 for small images, with its projection head."""

    def __init__(self):
        super().__init__(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1])
        self.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.maxpool = torch.nn.Identity()
        self.fc = torch.nn.Module()
        self.fc.linear_layers = torch.nn.Module()
        net = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.ReLU(), torch.nn.Linear(512, 128))
        self.fc.linear_layers.net = net
        self.fc.forward = net.forward
        self.normalize = torch.nn.Module()
        for name in ["mean", "std"]:
            self.normalize.register_buffer(name, torch.zeros(3))

    def forward(self, x):
        return super().forward((x - self.normalize.mean.view(1, 3, 1, 1)) / self.normalize.std.view(1, 3, 1, 1))


class Lars(torch.optim.Optimizer):
    """m = mu m + lr trust (g + wd p), p -= m; trust = 0.001 |p| / |g + wd p|. No decay and a trust of 1 for vectors if
    `exclude`: the network's vectors are BatchNorm's and the biases."""

    def __init__(self, parameters, lr, weight_decay, momentum, exclude):
        super().__init__(parameters, {"lr": lr})
        self.weight_decay, self.momentum, self.exclude = weight_decay, momentum, exclude

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                update = p.grad
                if p.dim() > 1 or not self.exclude:
                    update = p.grad + self.weight_decay * p
                    norms = p.norm(), update.norm()
                    if norms[0] > 0 and norms[1] > 0:
                        update = 0.001 * norms[0] / norms[1] * update
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                m.mul_(self.momentum).add_(group["lr"] * update)
                p.sub_(m)


def optimizer_of(run, parameters):
    lr, decay = run["lr"], run["weight-decay"]
    if run["optimizer"] == "sgd":
        return torch.optim.SGD(parameters, lr, momentum=run["momentum"], weight_decay=decay)
    if run["optimizer"] == "adam":
        return torch.optim.Adam(parameters, lr, weight_decay=decay)
    return Lars(parameters, lr, decay, run["momentum"], run.get("lars-exclude") != "none")


def lr_of(step, peak):
    """A linear warm-up from 0, then half a cosine down to 1e-6."""
    warmup, total = WARMUP * BATCHES, EPOCHS * BATCHES
    if step < warmup:
        return peak * step / warmup
    return 1e-6 + (peak - 1e-6) * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def contrast(features, run):
    """The objective to differentiate, and what a step says of itself. Row i's positive is the other view of its image."""
    z = F.normalize(features, dim=1)
    n = len(z) // 2
    s = z @ z.T
    positive = torch.cat([s.diagonal(n), s.diagonal(-n)])
    itself = torch.eye(2 * n, dtype=torch.bool)
    negatives = s[~(itself | itself.roll(n, 0))].view(2 * n, 2 * n - 2)
    d = (negatives - positive[:, None]) / run["temperature"]
    v = d.logsumexp(1)
    info_nce = F.softplus(v).mean()
    flat_nce = (v - v.detach()).exp().mean()
    gap = (positive - negatives.max(1).values).detach()
    said = {
        "loss_infonce": info_nce.item(),
        "ness_mean": (1 / (d.softmax(1).square().sum(1) * d.shape[1])).mean().item(),
        "contrastive_top1": (gap > 0).double().mean().item() * 100,
        "near": int((gap.abs() < NEAR).sum()),
    }
    return {"simclr": info_nce, "flatclr": flat_nce}[run["clr"]], said


def train(run, weights, views, dtype):
    net = Net()
    net.load_state_dict(weights, strict=True)
    net = net.to(dtype).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    optimizer = optimizer_of(run, net.parameters())
    steps = []
    for step, batch in enumerate(views):
        lr = lr_of(step, run["lr"])
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad()
        objective, said = contrast(net(batch.permute(0, 3, 1, 2).to(dtype) / 255), run)
        objective.backward()
        gradient = torch.stack([p.grad.norm() for p in net.parameters()]).norm().item()
        optimizer.step()
        steps.append(said | {"gradient_norm": gradient, "lr": lr})
    trained = {}
    for name, tensor in net.state_dict().items():
        if not name.startswith("normalize.") and not name.endswith("num_batches_tracked"):
            trained[name] = [tensor.norm().item(), (tensor - before[name]).norm().item()]
    return {"steps": steps, "trained": trained}


def exported(program):
    """The weights that the program starts from, and the views of every step."""
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        quiet = {"check": True, "stdout": subprocess.DEVNULL}
        words = [*DATA, *SHARED, "--epochs=0", f"--save-dir={place}"]
        subprocess.run([program, *[word for word in words if word != f"--epochs={EPOCHS}"]], **quiet)
        checkpoint, = place.rglob("checkpoint_0000.pth.tar")
        weights = torch.load(checkpoint, weights_only=True)["model_state_dict"]
        views = []
        for epoch in range(EPOCHS):
            words = [f"--images={BATCH}", f"--batches={BATCHES}", f"--epoch={epoch}", f"--out={place}/views.png",
                     f"--views={place}/views.safetensors"]
            subprocess.run([program, "preview", *DATA, *words], **quiet)
            views += load_file(place / "views.safetensors")["views"]
        return weights, views


def spread(weights, views):
    """The largest relative distances of float32 from float64 over the steps of each run."""
    for run in RUNS:
        exact = train(run, weights, views, torch.float64)
        for threads, mkldnn in [(1, True), (2, True), (1, False)]:
            torch.set_num_threads(threads)
            torch.backends.mkldnn.enabled = mkldnn
            got = train(run, weights, views, torch.float32)
            column = lambda result, key: [step[key] for step in result["steps"]]
            far = {}
            for key in ["loss_infonce", "ness_mean", "gradient_norm"]:
                far[key] = max(abs(g / e - 1) for g, e in zip(column(got, key), column(exact, key)))
            far["moved"] = max(abs(got["trained"][name][1] / e[1] - 1) for name, e in exact["trained"].items())
            top1 = zip(column(got, "contrastive_top1"), column(exact, "contrastive_top1"), column(exact, "near"))
            beyond = max(abs(g - e) * 2 * BATCH / 100 - near for g, e, near in top1)
            print(*run.values(), f"threads {threads}, MKLDNN {mkldnn}:", {key: f"{value:.1e}" for key, value in far.items()},
                  f"{beyond:.0f} anchors beyond the near ones", flush=True)
        torch.backends.mkldnn.enabled = True


def main():
    weights, views = exported(sys.argv[1])
    if "--spread" in sys.argv:
        return spread(weights, views)
    runs = []
    for run in RUNS:
        flags = [f"--{flag}={value}" for flag, value in run.items()]
        runs.append({"flags": [*DATA, *SHARED, *flags], **train(run, weights, views, torch.float64)})
    rounded = json.loads(json.dumps({"seed": SEED, "runs": runs}), parse_float=lambda text: float(f"{float(text):.7g}"))
    text = json.dumps(rounded).replace('{"flags"', '\n{"flags"')
    pathlib.Path(__file__).with_name("curve.json").write_text(text + "\n")


main()
