"""Every list of names to choose from, in one place.

Settings, help texts, error messages and the code behind a name read it here. A test checks that every name has code
behind it, so that a name that is only added here is noticed.
"""

from __future__ import annotations

DATASETS = ("shapes", "cifar10", "cifar100")
DATASET_FORMS = ("folder:", "npz:")  # a path follows
IN_MEMORY = "memory:"  # the fingerprint of images that a Python program gave follows
SPLITS = ("auto", "named", "none")  # which folders of an image folder are its splits
SMALLEST_BATCH = 2  # images; the loss compares each image with others
TRAIN_ON = ("train", "all")
DATA_ON = ("auto", "host", "device")

ENCODERS = ("resnet20", "resnet18", "resnet34", "resnet50")
STEMS = ("cifar", "imagenet")
NAMED_WEIGHTS = ("random", "imagenet")  # a file can be given instead
HEAD_BATCH_NORMS = ("none", "hidden", "all", "google")

OPTIMIZERS = ("adamw", "lamb", "lars", "sgd")
LEARNING_RATE_SCALINGS = ("none", "linear", "sqrt")
LOSS_REDUCTIONS = ("mean", "google")

PRECISIONS = ("float32", "bfloat16", "float16")  # for users; proofs also use float64
XLA = ("auto", "on", "off")
OPS = ("native", "stock")
BATCH_NORMS = ("sync", "local", "ghost")

PROTOCOLS = ("knn", "linear", "linear-augmented", "finetune")  # protocols of an evaluation


def describe_datasets() -> str:
    """Return the data sets in one line: "shapes, cifar10, cifar100, folder:PATH, npz:PATH"."""
    return ", ".join([*DATASETS, *(f"{form}PATH" for form in DATASET_FORMS)])
