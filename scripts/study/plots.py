"""The study's pictures."""

import statistics

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# Okabe and Ito.
COLOURS = {"simclr": "#d55e00", "flatclr": "#0072b2"}
NAMES = {"simclr": "SimCLR (InfoNCE)", "flatclr": "FlatCLR (FlatNCE)"}
STYLES = {"float32": "-", "bfloat16": "--", "float16": ":"}


def short_name(objective):
    return NAMES[objective].split()[0]


def figure(columns):
    made, axes = plt.subplots(1, columns, figsize=(5.2 * columns, 3.9), layout="constrained", squeeze=False)
    for axis in axes[0]:
        axis.grid(color="#e4e4e4")
        axis.spines[["top", "right"]].set_visible(False)
    return made, axes[0]


def save(made, path):
    made.savefig(path, dpi=110)
    plt.close(made)


def over_batches(axis, results, before):
    """Accuracies of both objectives over the batch size, and of the untrained encoders."""
    named = {"linear": ("linear", "-"), "knn": ("20 neighbours", "--")}
    batches = sorted({r["batch"] for r in results})
    for objective, colour in COLOURS.items():
        for key, (name, style) in named.items():
            of = lambda b: [r[key] for r in results if (r["objective"], r["batch"]) == (objective, b)]
            there = [b for b in batches if of(b)]
            means = [statistics.mean(of(b)) for b in there]
            errors = [statistics.stdev(of(b)) if len(of(b)) > 1 else 0.0 for b in there]
            label = f"{NAMES[objective]}, {name}"
            axis.errorbar(there, means, errors, color=colour, linestyle=style, marker="o", capsize=3, label=label)
    for key, (name, style) in named.items() if before else ():
        mean = statistics.mean(one[key] for one in before)
        axis.axhline(mean, color="#999999", linestyle=style, label=f"untrained, {name}")
    axis.set(xscale="log", xlabel="batch size (images)", ylabel="test top-1 (%)")
    axis.set_xticks(batches, [str(b) for b in batches])
    axis.minorticks_off()


# Trainings on CIFAR-10 are compared only where these are equal.
CIFAR_SIZE = ("model", "stem", "images", "data", "epochs")


def begun_alike(one, runs):
    """Of searches and untrained encoders those that belong to a training."""
    return [run for run in runs if all(run[key] == one[key] for key in CIFAR_SIZE if key != "epochs")]


def cifar(finals, before, recipes, out):
    """Accuracy over the batch size, a column a recipe, then what the objective says over the epochs; the most trained model of
    those there are."""
    named = [name for name in recipes if any(r["recipe"] == name for r in finals)]
    made, axes = figure(len(named) + 2)
    for axis, recipe in zip(axes, named):
        own = longest(finals, recipe)
        over_batches(axis, own, begun_alike(own[0], before))
        size = f"{own[0]['model']}, {own[0]['images']:,} images, {own[0]['epochs']} epochs"
        axis.set_title(f"{own[0]['data']}, {size}\n{recipes[recipe].about}", fontsize=9)
    ness, saturation = axes[-2:]
    own = longest(finals, named[0])
    batches = sorted({r["batch"] for r in own})
    for run in sorted((r for r in own if r["seed"] == 1), key=lambda r: (r["objective"], r["batch"])):
        epochs = [row["epoch"] + 1 for row in run["curve"]]
        strong = 0.35 + 0.65 * batches.index(run["batch"]) / max(1, len(batches) - 1)
        label = f"{short_name(run['objective'])}, batch {run['batch']}"
        named_so = {"color": COLOURS[run["objective"]], "alpha": strong, "label": label}
        ness.plot(epochs, [row["ness_mean"] for row in run["curve"]], **named_so)
        saturation.plot(epochs, [row["mi_estimate_nats"] / row["mi_ceiling_nats"] for row in run["curve"]], **named_so)
    ness.set(xlabel="epochs", ylabel="NESS", title="Effective sample size, seed 1", ylim=(0, None))
    saturation.set(xlabel="epochs", ylabel="estimate / log(2N-1)", title="Mutual information, seed 1", ylim=(0, 1))
    for axis in axes:
        axis.legend(fontsize=8)
    save(made, out / "cifar.png")


def longest(finals, recipe):
    own = [r for r in finals if r["recipe"] == recipe]
    most = max(own, key=lambda r: r["epochs"] * r["images"])
    return [r for r in own if all(r[key] == most[key] for key in CIFAR_SIZE)]


def numerics(results, out):
    made, (axis,) = figure(1)
    made.set_size_inches(8.2, 4.0)
    for objective, colour in COLOURS.items():
        for precision, style in STYLES.items():
            mine = [r for r in results if (r["objective"], r["precision"]) == (objective, precision)]
            label = f"{NAMES[objective]}, {precision}"
            axis.plot([r["gap"] for r in mine], [r["error"] for r in mine], style, color=colour, label=label)
    axis.set(
        yscale="log",
        xlabel="mean v = log ξ (nats); training moves it to the right",
        ylabel="relative error of the gradient",
        title="Gradients in low precision",
    )
    axis.invert_xaxis()
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    save(made, out / "numerics.png")


def upstream(pair, out):
    made, (axis,) = figure(1)
    steps = range(1, len(pair["ours"]) + 1)
    axis.plot(steps, pair["ours"], color="#0072b2", label="flatnce")
    axis.plot(steps, pair["theirs"], "--", color="#d55e00", label="PyTorch, same weights and views")
    axis.set(xlabel="step", ylabel="InfoNCE value (nats)", title="The same training twice")
    axis.legend(fontsize=8)
    save(made, out / "upstream.png")
