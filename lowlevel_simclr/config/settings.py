"""The settings of a run, as frozen dataclasses. Their names follow the SimCLR paper.

Every field of every section is one flag of the command line, so no two fields have the same name. Each field has its
own help, bounds and choices. Only the programs and `training/plan.py` read a `Config`. All other code takes plain
values.

A field with `identity=False` may change when a run is resumed (`config/identity.py`). These fields say where the
images, their labels and their splits lie, how much memory the images may take, how often a checkpoint is written, how
many checkpoints are kept, how many steps one call from Python makes, how long workers wait, and how often k-NN is
measured.

Some fields can be "auto" (the precision, the micro-batch) or "all" (the devices). The program chooses a value for them
before the config is written or compared. So config.json contains the value, and not the word "auto".

To add a setting, add a field. Presets (named sets of settings) are in `presets.py`, flags in `command_line.py`.

In the help texts, a view is a random crop of an image with changed colours. Training makes two views of every image. A
replica is a device that trains on its part of each batch. A worker is a process of a run, for example on another host.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from lowlevel_simclr.config import choices
from lowlevel_simclr.config.names import OneLineError

Range = tuple[float, float]  # (low, high), both ends included


class ConfigError(OneLineError, ValueError):
    """A setting is invalid. The message names the setting and its value, and says what to give instead."""


def _define_option(default: Any, text: str, **rule: Any) -> Any:
    """Define a field with its help text and its rule.

    The rule may hold `identity` (default True), `choices`, `metavar`, and the bounds `above`, `at_least`, `below` and
    `at_most`. Bounds apply to every number of a tuple. `added` marks a setting that runs of older versions do not have.
    Its default must give the behaviour of those versions.
    """
    return dataclasses.field(default=default, metadata={"help": text, **rule})


def _define_probability(default: float, text: str) -> Any:
    """Define a field that holds a probability."""
    return _define_option(default, text, at_least=0, at_most=1)


@dataclasses.dataclass(frozen=True)
class ViewRecipe:
    """How the random views are made (SimCLR, appendix A). Each view of each image has its own random parameters."""

    crop_area: Range = _define_option((0.08, 1.0), "share of the image that the crop covers", above=0, at_most=1)
    crop_aspect: Range = _define_option((3 / 4, 4 / 3), "width over height of the crop, log-uniform", above=0)
    flip_probability: float = _define_probability(0.5, "probability of a left-right flip")
    jitter_probability: float = _define_probability(0.8, "probability of the four colour operations")
    brightness: Range = _define_option((0.2, 1.8), "factor of the brightness", at_least=0)
    contrast: Range = _define_option((0.2, 1.8), "factor of the contrast, about each channel's mean", at_least=0)
    saturation: Range = _define_option((0.2, 1.8), "factor of the saturation (HSV)", at_least=0)
    hue: Range = _define_option((-0.2, 0.2), "shift of the hue (HSV); 1 is the full circle", at_least=-0.5, at_most=0.5)
    brightness_shift: Range = _define_option(
        (0.0, 0.0), "added to pixels in [0, 1], in addition to the brightness factor", at_least=-1, at_most=1
    )
    clip: bool = _define_option(True, "clip pixels to [0, 1] after each colour operation")
    grey_probability: float = _define_probability(0.2, "probability of a grey view")
    blur_probability: float = _define_probability(0.0, "probability of a Gaussian blur")
    blur_sigma: Range = _define_option((0.1, 2.0), "standard deviation of the blur, in pixels of the view", above=0)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The images to train on."""

    dataset: str = _define_option("shapes", f"the data set: {choices.describe_datasets()}", metavar="NAME")
    data_dir: str | None = _define_option(
        None,
        "folder with the data set's files; a relative PATH starts there; none: CIFAR is downloaded",
        identity=False,
        metavar="DIR",
    )
    splits: str = _define_option(
        "auto",
        "which folders of a folder of images are its splits: auto: decided from all folders; named: those named train, "
        "test or val; none: no folder, because all are classes",
        choices=choices.SPLITS,
        added=True,
    )
    labels: str | None = _define_option(
        None,
        "CSV file of paths and labels for folder:, list: and glob:; none: the folder of an image is its label",
        identity=False,
        metavar="FILE",
        added=True,
    )
    split: str | None = _define_option(
        None,
        "CSV file of paths and splits (train, test, val) for folder:, list: and glob:; none: the folders decide",
        identity=False,
        metavar="FILE",
        added=True,
    )
    stored_side: int | None = _define_option(
        None,
        "scale larger images of a folder down to this shorter side, in pixels; none: what the smallest crop needs, "
        "image size / sqrt(smallest crop area)",
        at_least=8,
    )
    memory_limit: float = _define_option(
        4.0,
        "GiB of pixels to keep in memory; the images of a larger folder are decoded when a batch needs them",
        at_least=0,
        identity=False,
    )
    cache: str | None = _define_option(
        None,
        "folder for the pixels of a folder of images, packed in one file, so that nothing is decoded again; runs share "
        "it; none: pixels are not packed",
        identity=False,
        metavar="DIR",
        added=True,
    )
    data_on: str = _define_option(
        "auto",
        "where to keep the images: host memory or device memory; auto: on the device, if there is one GPU and the "
        "images are few",
        choices=choices.DATA_ON,
        identity=False,
    )
    train_on: str = _define_option(
        "train", "train on the train split, or on both splits (inflates results)", choices=choices.TRAIN_ON
    )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The encoder (f) and the projection head (g)."""

    encoder: str = _define_option("resnet20", "the encoder (f)", choices=choices.ENCODERS)
    stem: str = _define_option(
        "cifar",
        "first layers: cifar: 3x3 without pooling; half: 3x3 with stride 2; imagenet: 7x7 with stride 2, then pooling",
        choices=choices.STEMS,
    )
    weights: str = _define_option(
        "random",
        "initial weights of the encoder: random, imagenet, a file or a run folder (with a / or . in its name)",
        metavar="NAME|FILE|RUN",
    )
    projection_widths: tuple[int, ...] = _define_option(
        (256, 128), "widths of the projection head's layers; the last is the width of z", at_least=1
    )
    projection_batch_norm: str = _define_option(
        "none",
        "BatchNorm in the projection head: hidden: after the hidden layers; all: after all layers; google: after all "
        "layers, the last one without shift",
        choices=choices.HEAD_BATCH_NORMS,
    )
    image_size: int = _define_option(32, "side of a view, in pixels", at_least=8)
    image_sizes: tuple[str, ...] | None = _define_option(
        None,
        "sides of the views of successive stages of training, each with its share of the training, such as 16:0.3 "
        "20:0.4 24:0.3; the last is --image-size; none: --image-size throughout",
        metavar="S:SHARE",
        added=True,
    )
    evaluation_size: int | None = _define_option(
        None,
        "side of the images that the trained encoder gets (in the evaluation, in embed and in exports), in pixels; "
        "none: that of the views",
        at_least=8,
        identity=False,
        added=True,
    )
    input_mean: tuple[float, ...] | None = _define_option(
        None, "mean to subtract from pixels in [0, 1] before the encoder; one number per channel"
    )
    input_std: tuple[float, ...] | None = _define_option(
        None, "standard deviation to divide pixels by after the mean is subtracted; one number per channel", above=0
    )


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The loss NT-Xent, over both views of the N images of a batch (2N views)."""

    temperature: float = _define_option(0.2, "temperature of NT-Xent", at_least=0.001, at_most=10)
    loss_reduction: str = _define_option(
        "mean",
        "mean: over the 2N views (the paper); google: twice this mean, because Google's code adds the means of the "
        "first and of the second views",
        choices=choices.LOSS_REDUCTIONS,
    )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer. The learning rate warms up linearly, then falls to 0 along a cosine."""

    optimizer: str = _define_option("adamw", "the optimizer", choices=choices.OPTIMIZERS)
    learning_rate: float = _define_option(2e-3, "learning rate before scaling", above=0)
    learning_rate_scaling: str = _define_option(
        "none", "linear: times batch/256; sqrt: times sqrt(batch)", choices=choices.LEARNING_RATE_SCALINGS
    )
    momentum: float = _define_option(0.9, "momentum of lars and sgd", at_least=0, below=1)
    beta_1: float = _define_option(0.9, "decay of the first moment of adamw and lamb", at_least=0, below=1)
    beta_2: float = _define_option(0.999, "decay of the second moment of adamw and lamb", at_least=0, below=1)
    epsilon: float = _define_option(1e-8, "epsilon of adamw and lamb, added to the root of the second moment", above=0)
    weight_decay: float = _define_option(1e-4, "weight decay of the variables of rank 2 and more", at_least=0)
    trust_coefficient: float = _define_option(0.001, "trust coefficient of lars", above=0)
    warmup_epochs: float = _define_option(1.0, "linear warm-up, in epochs; fractions are fine", at_least=0)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The training loop."""

    batch_size: int = _define_option(
        256, "images per step; the loss compares twice as many views", at_least=choices.SMALLEST_BATCH
    )
    epochs: int = _define_option(12, "passes over the images", at_least=1)
    steps: int | None = _define_option(
        None, "number of steps, which is also the length of the schedule; overrides --epochs", at_least=1
    )
    budget: str | None = _define_option(
        None,
        "time from the start of the program to the end of training, such as 90s, 10m or 1h; the measured speed then "
        "decides the number of steps, and some settings that neither a flag nor a preset gives; none: --epochs or "
        "--steps",
        metavar="TIME",
        added=True,
    )
    pairs_per_second: float | None = _define_option(
        None,
        "speed of this machine at --image-size, in pairs of views per second, for --budget; none: measured",
        above=0,
        added=True,
    )
    seed: int = _define_option(
        0, "seed of the initial weights, the order of the images and the views", at_least=0, at_most=2**64 - 1
    )
    precision: str = _define_option(
        "auto",
        "precision of the encoder; auto: the fastest on this device",
        choices=("auto", *choices.PRECISIONS),
    )
    xla: str = _define_option("auto", "compile the step with XLA; auto: on a GPU", choices=choices.XLA)
    ops: str = _define_option(
        "auto",
        "implementation of the loss and the views: native (this package's kernels) or stock TensorFlow; auto: native "
        "where this platform has the library",
        choices=choices.OPS,
    )
    micro_batch: str = _define_option(
        "0",
        "images that go through the encoder at once, over all replicas; the loss still compares the whole batch; "
        "0: the whole batch; auto: as many as fit on the GPU",
        metavar="N|auto",
    )
    devices: str = _define_option(
        "1", "replicas of this process: all, a number of GPUs, or cpu:R for virtual devices", metavar="all|N|cpu:R"
    )
    engine: str = _define_option(
        "threads",
        "what runs several replicas: threads: a thread for each; strategy: a strategy of TensorFlow's tf.distribute",
        choices=choices.ENGINES,
        added=True,
    )
    batch_norm: str = _define_option(
        "sync",
        "images that BatchNorm averages over: sync: the micro-batch of all replicas; local: that of each replica; "
        "ghost: groups of --ghost-batch images",
        choices=choices.BATCH_NORMS,
    )
    ghost_batch: int = _define_option(32, "images of a group of ghost BatchNorm", at_least=1)
    deterministic: bool = _define_option(True, "use only kernels that give bit-identical results every time")
    steps_per_call: int = _define_option(8, "steps that one call from Python makes", at_least=1, identity=False)
    checkpoint_every: int = _define_option(100, "steps between two checkpoints", at_least=1, identity=False)
    keep_checkpoints: int = _define_option(3, "how many checkpoints are kept", at_least=1, identity=False)
    worker_timeout: float = _define_option(
        600.0, "seconds that a worker waits for the others to start", above=0, identity=False
    )
    knn_every: int = _define_option(
        1,
        "epochs between check-ups (measurements of k-NN and others); 0: no check-ups, k-NN only at the end",
        at_least=0,
        identity=False,
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run. `preset` is only a label. The other values decide what the run does."""

    preset: str = "custom"
    views: ViewRecipe = ViewRecipe()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "optimizer": OptimizerConfig,
    "loss": LossConfig,
    "views": ViewRecipe,
}

# Keras's preprocessing for its ImageNet weights ("caffe"): pixels in [0, 255] minus these means, without a division.
# The encoder still takes red, green, blue: `encoder.build_encoder` reverses the channels of its first layer's weights.
CAFFE = {
    "input_mean": (123.68 / 255, 116.779 / 255, 103.939 / 255),
    "input_std": (1 / 255, 1 / 255, 1 / 255),
}
