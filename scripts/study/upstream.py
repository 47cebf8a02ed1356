"""The same training in PyTorch: the program's own views and initial weights, the recipe's formulas written anew.

Twice: with the paper's warm-up of ten epochs, whose first twenty losses are held against each other in float32; and with a
warm-up of one, whose encoders are evaluated by the program, which reads PyTorch's checkpoint.

Two programs never add in the same order, and every step of training multiplies what differs: at the full learning rate
differences of 1e-6 grow to 1e-3 nats within fifteen steps, which says nothing about the recipe.
"""

import json
import statistics
import sys

import model
import plots
import program
import torch
from safetensors.torch import load_file

BATCH, EPOCHS, STEPS = 128, 2, 20
TOLERANCE = 1e-3
# Epochs of warm-up: of the training whose losses are compared, of the one that is evaluated.
COMPARED, EVALUATED = 10, 1
# Fewer have no standard deviation.
SEEDS = 3
# As many as the steps need.
IMAGES = BATCH * STEPS // EPOCHS
LABELLED = 4_000


def run(options):
    lr = 0.3 * BATCH / 256
    pairs = []
    for seed in range(1, max(options.seeds, SEEDS) + 1):
        program.say(f"upstream check, seed {seed}")
        pairs.append(pair(options, lr, seed))
    worst, grown = (max(apart(one[which]) for one in pairs) for which in ("compared", "evaluated"))
    difference = statistics.mean(one["linear_ours"] - one["linear_theirs"] for one in pairs)
    content = {**program.surroundings(), "lr": lr, "epochs": EPOCHS, "worst_difference": worst, "worst_at_full_rate": grown, "pairs": pairs}
    program.write_json(options.out / "upstream.json", content)
    lines = [
        f"Same weights, same views, float32, {STEPS} steps: losses differ by at most {worst:.1e} nats in the paper's warm-up",
        f"(allowed: {TOLERANCE:g}), and by {grown:.1e} where the full rate is reached after {STEPS // EPOCHS} steps.",
        "",
        "| seed | linear top-1, flatnce (%) | linear top-1, PyTorch (%) |",
        "|---|---|---|",
        *(f"| {one['seed']} | {one['linear_ours']:.1f} | {one['linear_theirs']:.1f} |" for one in pairs),
        "",
    ]
    deviation = statistics.stdev(one["linear_theirs"] for one in pairs)
    lines.append(f"Mean difference {difference:+.2f} points; standard deviation over PyTorch's seeds {deviation:.2f}.")
    table = "\n".join(lines) + "\n"
    (options.out / "upstream.md").write_text(table)
    print(table)
    plots.upstream(pairs[0]["evaluated"], options.out)
    if worst > TOLERANCE:
        sys.exit(f"reproduce: error: the losses of the first {STEPS} steps differ by {worst:.2e}")
    if abs(difference) > deviation:
        sys.exit(f"reproduce: error: the accuracies differ by {difference:.2f} points, more than a standard deviation")


def apart(losses):
    return max(abs(a - b) for a, b in zip(losses["ours"], losses["theirs"]))


def pair(options, lr, seed):
    place = options.runs / f"upstream_s{seed}_e{EPOCHS}_n{IMAGES}_{options.model}"
    compared, _ = both(options, place / "compared", lr, seed, COMPARED)
    evaluated, checkpoints = both(options, place, lr, seed, EVALUATED)
    ours, theirs = checkpoints
    return {
        "seed": seed,
        "compared": compared,
        "evaluated": evaluated,
        "linear_ours": accuracy(options, ours, place / "evaluation_ours"),
        "linear_theirs": accuracy(options, theirs, place / "evaluation_theirs"),
    }


def both(options, place, lr, seed, warmup_epochs):
    """Losses of every step of both programs' training, and where their last checkpoints are."""
    flags = [
        *options.dataset, "--clr=flatclr", f"--model={options.model}", f"--batch-size={BATCH}", "--optimizer=lars",
        f"--lr={lr:.6g}", f"--seed={seed}", f"--train-images={IMAGES}", "--precision=fp32", f"--warmup-epochs={warmup_epochs}",
        f"--device={options.device}", "--save-every-n-epochs=1", "--knn-every=0",
    ]
    directory, _ = program.trained(place / "ours", flags, EPOCHS)
    initial, _ = program.trained(place / "initial", flags, 0)
    losses = [json.loads(line)["loss_infonce"] for line in (directory / "steps.jsonl").read_text().splitlines()]
    theirs = place / "theirs"
    if not (theirs / "done.json").exists():
        theirs.mkdir(parents=True, exist_ok=True)
        train(options, initial / "checkpoint_0000.pth.tar", theirs, lr, seed, warmup_epochs)
    told = {"ours": losses, "theirs": json.loads((theirs / "done.json").read_text())}
    return told, (directory / f"checkpoint_{EPOCHS:04}.pth.tar", theirs / "checkpoint_0001.pth.tar")


def train(options, initial, place, lr, seed, warmup_epochs):
    saved = torch.load(initial, weights_only=True, map_location="cpu")
    encoder = model.Encoder(options.model, dict(saved["model_state_dict"])).to(memory_format=torch.channels_last).train()
    optimizer, losses = model.Lars(encoder), []
    steps = IMAGES // BATCH
    for epoch in range(EPOCHS):
        views = place / "views.safetensors"
        program.call(
            "preview", *options.dataset, f"--images={BATCH}", f"--batches={steps}", f"--seed={seed}", f"--epoch={epoch}",
            f"--train-images={IMAGES}", f"--views={views}", f"--out={place / 'views.png'}",
        )
        for batch in load_file(views)["views"]:
            projected = encoder(model.pixels(batch).to(memory_format=torch.channels_last))
            positive, negatives = model.similarities(torch.nn.functional.normalize(projected))
            model.flatnce(positive, negatives, 0.1).backward()
            losses.append(model.infonce(positive.detach(), negatives.detach(), 0.1).item())
            optimizer.step(model.scheduled(lr, len(losses) - 1, warmup_epochs * steps, EPOCHS * steps))
        views.unlink()
    torch.save({"epoch": EPOCHS, "model": options.model, "model_state_dict": encoder.state_dict()}, place / "checkpoint_0001.pth.tar")
    program.write_json(place / "done.json", losses)


def accuracy(options, checkpoint, place):
    found = list(place.rglob("linear_eval.json"))
    if not found:
        program.call(
            *options.dataset, "--train-mode=eval", f"--checkpoint={checkpoint}", "--fc-optimizer=LBFGS", "--fc-epochs=200",
            "--fc-standardize", "--reg-weight=2.5e-3", f"--save-dir={place}", f"--device={options.device}", "--quiet",
            f"--train-images={LABELLED}",
        )
        found = list(place.rglob("linear_eval.json"))
    return json.loads(found[0].read_text())["test_top1_last_epoch"]
