"""How exact the gradients of both objectives are when they are computed in low precision, as the gap between positives
and negatives grows.

The features are those of a trained encoder on a batch of real views. The gap grows as it does in training, only further:
the two views of an image move towards one direction of their own, which is nearly orthogonal to those of other images;
when they are there, the temperature falls from 0.1 to 0.03. Everything after the features
(similarities, objective, backward pass) is computed in the named precision, without float32 anywhere, and compared with
float64 on the same numbers.
"""

import plots
import program
import pytorch
import torch
from common import markdown

BATCH, TEMPERATURE, LOWEST_TEMPERATURE = 128, 0.1, 0.03
POINTS = 40
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OBJECTIVES = {"simclr": pytorch.infonce, "flatclr": pytorch.flatnce}


def run(study):
    z, results = features(study), []
    for point in range(POINTS):
        # The first half of the points moves the features, the second lowers the temperature.
        way = 2 * point / (POINTS - 1)
        moved = apart(z, min(way, 1.0))
        temperature = TEMPERATURE * (LOWEST_TEMPERATURE / TEMPERATURE) ** max(way - 1.0, 0.0)
        with torch.no_grad():
            positive, negatives = pytorch.similarities(moved)
            gap = torch.logsumexp((negatives - positive) / temperature, 1).mean().item()
        for objective, loss in OBJECTIVES.items():
            for name, precision in PRECISIONS.items():
                # The same numbers for both sides: rounding the features themselves is no fault of an objective.
                rounded = moved.to(precision)
                exact = gradient(rounded.double(), loss, temperature)
                error = ((gradient(rounded, loss, temperature).double() - exact).norm() / exact.norm()).item()
                one = {"gap": gap, "temperature": temperature, "objective": objective, "precision": name, "error": error}
                results.append({**one, "gradient": exact.norm().item()})
    study.write("numerics", tables(results), batch=BATCH, results=results)
    plots.numerics(results, study.out)


def features(study):
    """Unit features [2B, 128] in float64 of the first batch of views, after a training of a few epochs."""
    options = study.options
    name = f"numerics_e{options.epochs}_n{options.images}_{options.model}"
    recipe = {"clr": "flatclr", "batch_size": BATCH, "optimizer": "adam", "lr": 1e-3, "scheduler": "constant"}
    files = {"keep_last": 1, "save_every_n_epochs": 1, "knn_every": 0}
    made = study.pretrained(name, options.epochs, **recipe, **files, train_images=options.images)
    views = program.views(options.runs / name, **study.dataset, images=BATCH)[0]
    newest = sorted(made.directory.glob("checkpoint_*.pth.tar"))[-1]
    encoder = pytorch.Encoder(options.model, program.weights(newest)).train()
    with torch.no_grad():
        return torch.nn.functional.normalize(encoder(pytorch.pixels(views)).double())


def apart(z, amount):
    """0: as they are; 1: both views of an image at a direction of its own."""
    half = len(z) // 2
    own = torch.randn(half, z.shape[1], dtype=z.dtype, generator=torch.Generator().manual_seed(0))
    own = torch.nn.functional.normalize(own).repeat(2, 1)
    return torch.nn.functional.normalize((1 - amount) * z + amount * own)


def gradient(z, loss, temperature):
    z = z.clone().requires_grad_(True)
    loss(*pytorch.similarities(z), temperature).backward()
    return z.grad


def tables(results):
    gaps = sorted({r["gap"] for r in results}, reverse=True)
    shown = [gaps[0], gaps[(len(gaps) - 1) // 2], gaps[-1]]
    errors = {(r["precision"], r["objective"], r["gap"]): f"{r['error']:.2g}" for r in results}
    lines = [[precision, objective, *(errors[precision, objective, gap] for gap in shown)]
             for precision in PRECISIONS for objective in OBJECTIVES]  # fmt: skip
    title = "Relative error of the gradient against float64, at three mean values of v = log ξ (nats):\n\n"
    return title + markdown(["precision", "objective", *(f"v = {gap:.1f}" for gap in shown)], lines) + "\n"
