"""The names that a user can choose for each setting, all in one place.

The settings, the help texts and the error messages read these lists, and so does the code that implements the names. A
test checks that every name is implemented.
"""

from __future__ import annotations

DATASETS = ("shapes", "cifar10", "cifar100")
# A data set of encoded images (such as JPEG files) has a name like folder:PATH. These are the beginnings of such names.
# FOLLOWS has the word for the rest of the name.
PICTURE_FORMS = ("folder:", "list:", "glob:", "tfrecord:", "parquet:", "tfds:")
FILE_FORMS = PICTURE_FORMS[:3]  # data sets in which each file holds one image
DATASET_FORMS = (*PICTURE_FORMS, "npz:")
FOLLOWS = {"list:": "FILE", "glob:": "PATTERN", "tfds:": "NAME"}  # PATH follows the other forms
IN_MEMORY = "memory:"  # images that a Python program passed to `train`; a hash of the images follows the colon
SPLITS = ("auto", "named", "none")  # which folders of images are splits (train, test, val), see --splits
SMALLEST_BATCH = 2  # images; the loss compares each image with other images
TRAIN_ON = ("train", "all")
DATA_ON = ("auto", "host", "device")

ENCODERS = ("resnet8x4", "resnet20", "resnet18", "resnet34", "resnet50", "resnet18v1.5", "resnet34v1.5", "resnet50v1.5")
STEMS = ("cifar", "half", "imagenet")
NAMED_WEIGHTS = ("random", "imagenet")  # the path of a file or of a run folder can be given instead
HEAD_BATCH_NORMS = ("none", "hidden", "all", "google")

OPTIMIZERS = ("adamw", "lamb", "lars", "sgd")
LEARNING_RATE_SCALINGS = ("none", "linear", "sqrt")
LOSS_REDUCTIONS = ("mean", "google")

PRECISIONS = ("float32", "bfloat16", "float16")  # for users; tests also use float64
XLA = ("auto", "on", "off")
OPS = ("auto", "native", "stock")
BATCH_NORMS = ("sync", "local", "ghost")
ENGINES = ("threads", "strategy")

PROTOCOLS = ("knn", "linear", "linear-augmented", "finetune")  # ways to evaluate an encoder

EXPORT_FORMATS = ("keras", "saved_model", "onnx", "litert", "pytorch")
EXPORT_WEIGHTS = ("float32", "float16", "int8")  # number types; all but the first are for LiteRT


def describe_datasets() -> str:
    """Return the data sets in one line: "shapes, cifar10, cifar100, folder:PATH, ..., npz:PATH"."""
    return ", ".join([*DATASETS, *map(describe_form, DATASET_FORMS)])


def describe_form(form: str) -> str:
    """Return the beginning of a data set's name with a word for the rest, such as "folder:PATH" for "folder:"."""
    return form + FOLLOWS.get(form, "PATH")
