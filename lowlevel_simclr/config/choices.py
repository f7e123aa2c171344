"""Every list of names to choose from, in one place.

Settings, help texts, error messages and the code behind a name read these lists. A test checks that there is code
behind every name. So it fails if a name is added only here.
"""

from __future__ import annotations

DATASETS = ("shapes", "cifar10", "cifar100")
# Encoded images. FOLLOWS says what follows each form.
PICTURE_FORMS = ("folder:", "list:", "glob:", "tfrecord:", "parquet:", "tfds:")
FILE_FORMS = PICTURE_FORMS[:3]  # one image a file
DATASET_FORMS = (*PICTURE_FORMS, "npz:")
FOLLOWS = {"list:": "FILE", "glob:": "PATTERN", "tfds:": "NAME"}  # PATH follows the other forms
IN_MEMORY = "memory:"  # followed by the fingerprint of images that a Python program gave
SPLITS = ("auto", "named", "none")  # how the folders of an image folder are used as splits
SMALLEST_BATCH = 2  # images; the loss compares each image with other images
TRAIN_ON = ("train", "all")
DATA_ON = ("auto", "host", "device")

ENCODERS = ("resnet20", "resnet18", "resnet34", "resnet50", "resnet18v1.5", "resnet34v1.5", "resnet50v1.5")
STEMS = ("cifar", "imagenet")
NAMED_WEIGHTS = ("random", "imagenet")  # the path of a file can be given instead
HEAD_BATCH_NORMS = ("none", "hidden", "all", "google")

OPTIMIZERS = ("adamw", "lamb", "lars", "sgd")
LEARNING_RATE_SCALINGS = ("none", "linear", "sqrt")
LOSS_REDUCTIONS = ("mean", "google")

PRECISIONS = ("float32", "bfloat16", "float16")  # for users; tests also use float64
XLA = ("auto", "on", "off")
OPS = ("auto", "native", "stock")
BATCH_NORMS = ("sync", "local", "ghost")

PROTOCOLS = ("knn", "linear", "linear-augmented", "finetune")  # protocols of an evaluation

EXPORT_FORMATS = ("keras", "saved_model", "onnx", "litert", "pytorch")
EXPORT_WEIGHTS = ("float32", "float16", "int8")  # number types; all but the first are for LiteRT


def describe_datasets() -> str:
    """Return the data sets in one line: "shapes, cifar10, cifar100, folder:PATH, ..., npz:PATH"."""
    return ", ".join([*DATASETS, *map(describe_form, DATASET_FORMS)])


def describe_form(form: str) -> str:
    """Return a form of a data set with what follows it, such as "folder:PATH"."""
    return form + FOLLOWS.get(form, "PATH")
