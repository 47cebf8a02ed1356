"""The same training in PyTorch: the program's own views and initial weights, the recipe's formulas written anew.

Twice: with the paper's warm-up of ten epochs, whose first twenty losses are held against each other in float32; and with a
warm-up of one, whose encoders are evaluated by the program, which reads PyTorch's checkpoint.

Two programs never add in the same order, and every step of training multiplies what differs: at the full learning rate
differences of 1e-6 grow to 1e-3 nats within fifteen steps, which says nothing about the recipe.
"""

import json
import statistics

import plots
import program
import pytorch
import torch
from common import markdown, say, write_json

BATCH, EPOCHS, STEPS = 128, 2, 20
TOLERANCE = 1e-3
# Epochs of warm-up: of the training whose losses are compared, of the one that is evaluated.
COMPARED, EVALUATED = 10, 1
# Fewer have no standard deviation.
SEEDS = 3
# As many as the steps need.
IMAGES = BATCH * STEPS // EPOCHS
LABELLED = 4_000


def run(study):
    lr, pairs = 0.3 * BATCH / 256, []
    for seed in range(1, max(study.options.seeds, SEEDS) + 1):
        say(f"upstream check, seed {seed}")
        pairs.append(pair(study, lr, seed))
    worst, grown = (max(program.apart(*one[which].values()) for one in pairs) for which in ("compared", "evaluated"))
    difference = statistics.mean(one["linear_ours"] - one["linear_theirs"] for one in pairs)
    deviation = statistics.stdev(one["linear_theirs"] for one in pairs)
    lines = [[one["seed"], f"{one['linear_ours']:.1f}", f"{one['linear_theirs']:.1f}"] for one in pairs]
    table = (
        f"Same weights, same views, float32, {STEPS} steps: losses differ by at most {worst:.1e} nats in the paper's warm-up\n"
        f"(allowed: {TOLERANCE:g}), and by {grown:.1e} where the full rate is reached after {STEPS // EPOCHS} steps.\n\n"
        f"{markdown(['seed', 'linear top-1, flatnce (%)', 'linear top-1, PyTorch (%)'], lines)}\n\n"
        f"Mean difference {difference:+.2f} points; standard deviation over PyTorch's seeds {deviation:.2f}.\n"
    )
    study.write("upstream", table, lr=lr, epochs=EPOCHS, worst_difference=worst, worst_at_full_rate=grown, pairs=pairs)
    plots.upstream(pairs[0]["evaluated"], study.out)
    if worst > TOLERANCE:
        raise program.Failed(f"the losses of the first {STEPS} steps differ by {worst:.2e}")
    if abs(difference) > deviation:
        raise program.Failed(f"the accuracies differ by {difference:.2f} points, more than a standard deviation")


def pair(study, lr, seed):
    name = f"upstream_s{seed}_e{EPOCHS}_n{IMAGES}_{study.options.model}"
    compared, _ = both(study, f"{name}/compared", lr, seed, COMPARED)
    evaluated, checkpoints = both(study, name, lr, seed, EVALUATED)
    classifier = {"fc_optimizer": "LBFGS", "fc_epochs": 200, "fc_standardize": "true", "reg_weight": 2.5e-3, "train_images": LABELLED}
    linear = {}
    for side, checkpoint in checkpoints.items():
        place = study.options.runs / name / f"evaluation_{side}"
        linear[f"linear_{side}"] = program.evaluated(place, **study.flags, checkpoint=checkpoint, **classifier)["test_top1_last_epoch"]
    return {"seed": seed, "compared": compared, "evaluated": evaluated, **linear}


def both(study, name, lr, seed, warmup_epochs):
    """Losses of every step of both programs' training, and where their last checkpoints are."""
    recipe = {"clr": "flatclr", "batch_size": BATCH, "optimizer": "lars", "lr": f"{lr:.6g}", "warmup_epochs": warmup_epochs}
    recipe |= {"seed": seed, "train_images": IMAGES, "precision": "fp32", "save_every_n_epochs": 1, "knn_every": 0}
    ours, initial = (study.pretrained(f"{name}/{part}", epochs, **recipe) for part, epochs in (("ours", EPOCHS), ("initial", 0)))
    theirs = study.options.runs / name / "theirs"
    if not (theirs / "done.json").exists():
        theirs.mkdir(parents=True, exist_ok=True)
        train(study, initial.checkpoint(0), theirs, lr, seed, warmup_epochs)
    losses = {"ours": ours.losses(), "theirs": json.loads((theirs / "done.json").read_text())}
    return losses, {"ours": ours.checkpoint(EPOCHS), "theirs": theirs / "checkpoint_0001.pth.tar"}


def train(study, initial, place, lr, seed, warmup_epochs):
    encoder = pytorch.Encoder(study.options.model, program.weights(initial)).to(memory_format=torch.channels_last).train()
    optimizer, losses, steps = pytorch.ListLars(encoder.parameters(), lr), [], IMAGES // BATCH
    for epoch in range(EPOCHS):
        asked = {"images": BATCH, "batches": steps, "seed": seed, "epoch": epoch, "train_images": IMAGES}
        for batch in program.views(place, **study.dataset, **asked):
            optimizer.zero_grad()
            optimizer.lr = pytorch.scheduled(lr, len(losses), warmup_epochs * steps, EPOCHS * steps)
            losses.append(pytorch.backward(encoder, pytorch.pixels(batch).to(memory_format=torch.channels_last)))
            optimizer.step()
    state = {"epoch": EPOCHS, "model": study.options.model, "model_state_dict": encoder.state_dict()}
    torch.save(state, place / "checkpoint_0001.pth.tar")
    write_json(place / "done.json", losses)
