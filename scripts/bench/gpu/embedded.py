"""Trainings on the embedded images that only have to be right, several beside each other."""

import shutil

import program

IMAGES = {"dataset_name": "fashion_mnist_mini"}


def place(options, name):
    """Below the stage's own."""
    return options.place / options.stage / name.replace(" ", "_")


def fresh(options, name):
    """The same without what an earlier call has left there (--keep)."""
    shutil.rmtree(place(options, name), ignore_errors=True)
    return place(options, name)


def train(options, name, **flags):
    return program.train(place(options, name), **IMAGES, **{"device": options.device, "knn_every": 0, **flags})


def resume(options, name, checkpoint, **flags):
    """Goes on from a copy of a checkpoint, in a directory of its own."""
    directory = fresh(options, name)
    directory.mkdir(parents=True)
    shutil.copy(checkpoint, directory)
    return program.Run(directory, program.call(**{"resume": directory, "device": options.device, **flags}))


def runs(options):
    return program.Runs(2 if options.smoke else 5)
