"""How long until 20 neighbours are right about 90.0% of CIFAR-10's test images.

A cosine schedule has its accuracy at its end, so each length is a training of its own: the shortest that gets there is the
result, and the minutes are those of its epochs. All 50,000 training images vote on all 10,000 test images.
"""

import cifar
from common import markdown, say

LEVEL = 90.0
LENGTHS = [100, 200, 300, 500]
# Factor of the learning rate of the recipe "sgd".
BATCH, FACTOR, SEED = 512, 4.0, 1


def run(study):
    options, rows = study.options, []
    lengths = [options.epochs] if options.epochs else LENGTHS
    for epochs in lengths:
        case = cifar.Case("sgd", "flatclr", BATCH, FACTOR, SEED, epochs, *cifar.size(study))
        say(case.name)
        rows.append(entered(study, case))
        if reached(rows):
            break
    place = {"card": cifar.card(options.device), "data": study.data_name}
    study.write("race", table(study, rows), **place, level=LEVEL, reached=reached(rows), rows=rows)


def reached(rows):
    return rows[-1]["knn"] >= LEVEL


def entered(study, case):
    made = cifar.trained(study, case, knn_every=0)
    seconds = sum(row["epoch_seconds"] for row in made.lines("metrics.jsonl"))
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in case.flags().items())
    command = f"flatnce --dataset-name cifar10 --model {case.model} {flags} --epochs {case.epochs}"
    found = cifar.evaluated(study, made, case)
    return {"epochs": case.epochs, "minutes": seconds / 60, **found, "command": command}


def table(study, rows):
    head = ["epochs", "minutes", "20 neighbours (%)", "linear top-1 (%)"]
    lines = [[row["epochs"], f"{row['minutes']:.1f}", f"{row['knn']:.2f}", f"{row['linear']:.2f}"] for row in rows]
    last = rows[-1]
    end = f"{LEVEL}% after {last['minutes']:.1f} minutes:" if reached(rows) else f"{LEVEL}% not reached; the longest was"
    return f"{study.data_name}\n\n{markdown(head, lines)}\n\n{end}\n\n    {last['command']}\n"
