"""How exact the gradients of both objectives are when they are computed in low precision, as the gap between positives
and negatives grows.

The features are those of a trained encoder on a batch of real views. The gap grows as it does in training, only further:
the two views of an image move towards one direction of their own, which is nearly orthogonal to those of other images;
when they are there, the temperature falls from 0.1 to 0.03. Everything after the features
(similarities, objective, backward pass) is computed in the named precision, without float32 anywhere, and compared with
float64 on the same numbers.
"""

import model
import plots
import program
import torch
from safetensors.torch import load_file

BATCH, TEMPERATURE, LOWEST_TEMPERATURE = 128, 0.1, 0.03
POINTS = 40
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OBJECTIVES = {"simclr": model.infonce, "flatclr": model.flatnce}


def run(options):
    z = features(options)
    results = []
    for point in range(POINTS):
        # The first half of the points moves the features, the second lowers the temperature.
        way = 2 * point / (POINTS - 1)
        moved = apart(z, min(way, 1.0))
        temperature = TEMPERATURE * (LOWEST_TEMPERATURE / TEMPERATURE) ** max(way - 1.0, 0.0)
        with torch.no_grad():
            positive, negatives = model.similarities(moved)
            gap = torch.logsumexp((negatives - positive[:, None]) / temperature, 1).mean().item()
        for objective, loss in OBJECTIVES.items():
            for name, precision in PRECISIONS.items():
                # The same numbers for both sides: rounding the features themselves is no fault of an objective.
                rounded = moved.to(precision)
                exact = gradient(rounded.double(), loss, temperature)
                error = ((gradient(rounded, loss, temperature).double() - exact).norm() / exact.norm()).item()
                results.append({"gap": gap, "temperature": temperature, "objective": objective, "precision": name, "error": error,
                                "gradient": exact.norm().item()})
    content = {**program.surroundings(), "batch": BATCH, "results": results}
    program.write_json(options.out / "numerics.json", content)
    table = tables(results)
    (options.out / "numerics.md").write_text(table)
    print(table)
    plots.numerics(results, options.out)


def features(options):
    """Unit features [2B, 128] in float64 of the first batch of views, after a training of a few epochs."""
    place = options.runs / f"numerics_e{options.epochs}_n{options.images}_{options.model}"
    words = [
        *options.dataset, "--clr=flatclr", f"--model={options.model}", f"--batch-size={BATCH}", "--optimizer=adam",
        "--lr=1e-3", "--scheduler=constant", f"--train-images={options.images}", f"--device={options.device}",
        "--keep-last=1", "--save-every-n-epochs=1", "--knn-every=0",
    ]
    directory, _ = program.trained(place, words, options.epochs)
    views = place / "views.safetensors"
    program.call("preview", *options.dataset, f"--images={BATCH}", f"--views={views}", f"--out={place / 'views.png'}")
    saved = torch.load(sorted(directory.glob("checkpoint_*.pth.tar"))[-1], weights_only=True, map_location="cpu")
    encoder = model.Encoder(options.model, saved["model_state_dict"]).train()
    with torch.no_grad():
        projected = encoder(model.pixels(load_file(views)["views"][0]))
    return torch.nn.functional.normalize(projected.double())


def apart(z, amount):
    """0: as they are; 1: both views of an image at a direction of its own."""
    half = len(z) // 2
    own = torch.randn(half, z.shape[1], dtype=z.dtype, generator=torch.Generator().manual_seed(0))
    own = torch.nn.functional.normalize(own).repeat(2, 1)
    return torch.nn.functional.normalize((1 - amount) * z + amount * own)


def gradient(z, loss, temperature):
    z = z.clone().requires_grad_(True)
    loss(*model.similarities(z), temperature).backward()
    return z.grad


def tables(results):
    gaps = sorted({r["gap"] for r in results})
    shown = [gaps[0], gaps[len(gaps) // 2], gaps[-1]]
    lines = ["Relative error of the gradient against float64, at three mean values of v = log ξ (nats):", ""]
    lines += ["| precision | objective | " + " | ".join(f"v = {gap:.1f}" for gap in reversed(shown)) + " |", "|---|---|---|---|---|"]
    for precision in PRECISIONS:
        for objective in OBJECTIVES:
            mine = {r["gap"]: r["error"] for r in results if (r["precision"], r["objective"]) == (precision, objective)}
            cells = " | ".join(f"{mine[gap]:.2g}" for gap in reversed(shown))
            lines.append(f"| {precision} | {objective} | {cells} |")
    return "\n".join(lines) + "\n"
