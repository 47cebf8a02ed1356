"""Runs the parts of the study."""

import argparse
import importlib
import shlex
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench"))
import common
import program
from program import Failed

PARTS = {
    "numerics": "the objectives' gradients in float32, bfloat16 and float16",
    "upstream": "the same training in PyTorch, step by step from the same weights on the same views",
    "agreement": "linear classifier and nearest neighbours against scikit-learn's, on the features that embed writes",
    "cifar": "the claim: both objectives over the batch size on CIFAR-10, and what it costs; named alone",
    "race": "minutes until 20 neighbours are right about 90.0% of CIFAR-10's test images; for a GPU, named alone",
}
QUICK = {"images": 2_048, "labelled": 4_000, "epochs": 6, "seeds": 3}
FULL = {"images": 60_000, "labelled": 60_000, "epochs": 60, "seeds": 3}

# Of part cifar. On two cores the small stem leaves time for one epoch; with the stem that shrinks the images at once the
# training gets fifteen, and a training on each core does half as much again as one on both.
FACTORS = [0.25, 0.5, 1.0, 2.0, 4.0]
CIFAR_QUICK = {
    "model": "res10", "stem": "imagenet", "batches": [16, 128], "recipes": ["sgd"], "factors": FACTORS, "seeds": 2,
    "images": 10_000, "epochs": 15, "search_epochs": 1, "at_once": 2,
}  # fmt: skip
CIFAR_FULL = {
    "model": "res18", "stem": "small", "batches": [32, 64, 128, 256, 512], "recipes": ["sgd", "lars"],
    "factors": FACTORS, "seeds": 3, "images": 50_000, "epochs": 100, "search_epochs": 5, "at_once": 1,
}  # fmt: skip
RACE = {"model": "res18", "stem": "small", "images": 50_000}
# Parts with sizes of their own: quick, full.
ALONE = {"cifar": (CIFAR_QUICK, CIFAR_FULL), "race": (RACE, RACE)}


def numbers(kind):
    return lambda text: [kind(word) for word in text.split(",")]


def arguments():
    parts = "\n".join(f"  {name:<10} {about}" for name, about in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="./scripts/reproduce.sh", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Sets up and builds (scripts/setup.sh --python), then runs the parts, all but the last two\n"
        f"unless some are named:\n\n{parts}",
        epilog="A study that was stopped goes on where it was: finished trainings are kept, one that was cut\n"
        "off is resumed from its checkpoint.",
    )  # fmt: skip
    parser.add_argument("parts", nargs="*", metavar="PART")
    size = parser.add_mutually_exclusive_group()
    quick = "2,048 images; of cifar 10,000, batch sizes 16 and 128, two seeds, 90 minutes on two cores (the default)"
    full = "all images; of cifar batch sizes 32 to 512, three seeds, 100 epochs: days on a GPU"
    size.add_argument("--quick", action="store_true", help=quick)
    size.add_argument("--full", action="store_true", help=full)
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto (default)")
    for name, default, about in (
        ("out", "results/study", "tables and pictures"),
        ("runs", "results/study-runs", "where the trainings are kept"),
        ("data", "datasets", "as flatnce's --data"),
    ):
        parser.add_argument(f"--{name}", metavar="DIR", type=Path, default=Path(default), help=f"{about} (default: {default})")
    parser.add_argument("--model", help="default: res10; of cifar --full and race res18")
    parser.add_argument("--batches", type=numbers(int), help="these and the next instead of what --quick or --full says (batches, factors, "
                        "search: of cifar)")  # fmt: skip
    parser.add_argument("--factors", type=numbers(float), help="multiply the learning rate in its search (default: 0.25,0.5,1,2,4)")
    about = {"labelled": "training images of part agreement", "epochs": "of race: this length alone (default: 100, 200, 300, 500 until one gets there)"}
    for name in ("seeds", "images", "labelled", "epochs", "search-epochs"):
        parser.add_argument(f"--{name}", type=int, help=about.get(name))
    parser.add_argument("--recipes", type=lambda text: text.split(","), help="of part cifar: sgd, lars or both (default: --quick sgd, "
                        "--full both)")  # fmt: skip
    parser.add_argument("--stem", help="of part cifar (default: --quick imagenet, --full small)")
    parser.add_argument("--at-once", type=int, help="part cifar: trainings beside each other (default: --quick 2, --full 1)")
    parser.add_argument("--minutes", type=float, help="part cifar: none begins that would not end within so many (default: no limit)")
    parser.add_argument("--draw", action="store_true", help="part cifar: only the table and the picture of what is finished")
    parser.add_argument("--data-name", default="CIFAR-10", help="parts cifar and race: what the images are called (default: CIFAR-10); those of another name are trained on anew")
    parser.add_argument("--binary", type=Path, help="this flatnce instead of setting up and building one, with the libtorch of the PyTorch "
                        "that runs this script")  # fmt: skip
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        raise Failed(f"'{unknown[0]}' is none of: {' '.join(PARTS)}")
    options.alone = next((part for part in ALONE if part in options.parts), None)
    if options.alone and len(options.parts) > 1:
        raise Failed(f"part {options.alone} has sizes of its own: name it alone")
    if unknown := [name for name in options.recipes or [] if name not in ("sgd", "lars")]:
        raise Failed(f"--recipes: '{unknown[0]}' is none of: sgd lars")
    quick, full = ALONE.get(options.alone, (QUICK, FULL))
    sizes = full if options.full else quick
    for name, value in {"model": "res10", **sizes}.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


class Study:
    """The options of the study, flags that all its runs share, and where their results go."""

    def __init__(self, options):
        import pytorch

        self.options, self.out, self.command = options, options.out, shlex.join(["./scripts/reproduce.sh", *sys.argv[1:]])
        if options.alone:
            self.data_name, self.dataset = options.data_name, {"dataset_name": "cifar10", "data": options.data}
        else:
            _, self.dataset = pytorch.fashion(options.data)
            if "data" not in self.dataset:
                if options.images > 4_000:
                    raise Failed("Fashion-MNIST is not installed; ./scripts/get_data.sh fashion_mnist gets it")
                common.say("Fashion-MNIST is not installed: the 4,000 + 1,000 images inside the program are used")
        self.flags = {**self.dataset, "device": options.device}

    def pretrained(self, name, epochs, **flags):
        return program.trained(self.options.runs / name, epochs, **self.flags, model=self.options.model, **flags)

    def features(self, run, out, images, part="train"):
        """Of the newest checkpoint, as the linear evaluation sees them, and labels."""
        import numpy as np

        if not (out / "embed.json").exists():
            asked = {"checkpoint_dir": run.directory, "part": part, "out": out, "train_images": images}
            program.call("embed", "--force", **self.flags, **asked)
        return np.load(out / "features.npy"), np.load(out / "labels.npy")

    def write(self, part, table, **content):
        """PART.json, with what a number is worth nothing without, and PART.md."""
        where = common.surroundings()
        place = {
            "command": self.command, "commit": where["commit"],
            "program": where["versions"]["flatnce"], "cpu": where["machine"]["cpu"], "cores": where["machine"]["cores"],
            "torch": where["versions"]["torch"], "date": where["date"],
        }  # fmt: skip
        common.write_json(self.out / f"{part}.json", {**place, **content})
        (self.out / f"{part}.md").write_text(table)
        print(table)


def main():
    options = arguments()
    if options.binary:
        program.use(options.binary)
    else:
        common.set_up(["build", "--release"])
    options.out.mkdir(parents=True, exist_ok=True)
    study = Study(options)
    for part in options.parts or [part for part in PARTS if part not in ALONE]:
        importlib.import_module(part).run(study)


common.run_as("reproduce", main)
