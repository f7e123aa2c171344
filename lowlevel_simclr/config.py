"""What a run is: frozen dataclasses in the paper's words, named presets, and text -> config -> text.

Every field of every section is one flag of the command line, so names are unique over all sections and each
field carries its own help, bounds and choices. Only entry points read a `Config`; everything below them takes
plain values.

A field is part of a run's *identity* when it can change the trained weights, if only in the last bit: a run
is resumed only under the same identity. Not part of it (`identity=False`) are where the images lie, how often
a checkpoint is written, how many are kept, how many steps one host call makes and how often k-NN looks; they
may change from one session of a run to the next. Settings that say "auto" are to be replaced by what was
chosen before the config is written or compared: what was chosen is identity, that it was chosen automatically
is not.

To add a preset: write a function that returns `replace(Config(), preset=NAME, ...)` with a docstring that
says what it reproduces, the expected result and the cost, and name it in `PRESETS`. To add a setting: add a
field.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import hashlib
import json
import math
import re
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

Range = tuple[float, float]  # (low, high), both ends included

DATASETS = ("shapes", "cifar10", "cifar100")
DATASET_FORMS: tuple[str, ...] = ("folder:", "npz:")  # prefixes that take a path behind them, such as "folder:"
ENCODERS = ("resnet20", "resnet18", "resnet34", "resnet50")
OPTIMIZERS = ("adamw", "lamb", "lars", "sgd")
NAMED_WEIGHTS = ("random", "imagenet")
LARGEST_JITTER = 2.5  # hue moves by 0.2 strength, and half a turn either way is every hue there is


class ConfigError(ValueError):
    """A setting that cannot be; the text names it, its value and what to give instead."""


def _option(default: Any, text: str, **rule: Any) -> Any:
    """A field with its help text and its rule.

    The rule may hold `identity` (default True), `choices`, `metavar`, and the bounds `above`, `at_least`,
    `below`, `at_most`, which hold for every number of a tuple.
    """
    return dataclasses.field(default=default, metadata={"help": text, **rule})


def _share(default: float, text: str) -> Any:
    """A probability."""
    return _option(default, text, at_least=0, at_most=1)


@dataclasses.dataclass(frozen=True)
class ViewRecipe:
    """How a view is drawn (SimCLR, appendix A); every image and view draws its own."""

    crop_area: Range = _option((0.08, 1.0), "share of the image that the crop covers", above=0, at_most=1)
    crop_aspect: Range = _option((3 / 4, 4 / 3), "width over height of the crop, log-uniform", above=0)
    flip_probability: float = _share(0.5, "probability of a left-right flip")
    jitter_probability: float = _share(0.8, "probability of the four colour operations")
    brightness: Range = _option((0.2, 1.8), "factor of the brightness", at_least=0)
    contrast: Range = _option((0.2, 1.8), "factor of the contrast, about each channel's mean", at_least=0)
    saturation: Range = _option((0.2, 1.8), "factor of the saturation (HSV)", at_least=0)
    hue: Range = _option((-0.2, 0.2), "shift of the hue (HSV), in turns", at_least=-0.5, at_most=0.5)
    brightness_shift: Range = _option(
        (0.0, 0.0), "what is added beside the brightness factor, pixels in [0, 1]", at_least=-1, at_most=1
    )
    clip: bool = _option(True, "clip pixels to [0, 1] after each colour operation")
    grey_probability: float = _share(0.2, "probability of a grey view")
    blur_probability: float = _share(0.0, "probability of a Gaussian blur")
    blur_sigma: Range = _option((0.1, 2.0), "standard deviation of the blur, in pixels of the view", above=0)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images are trained on."""

    dataset: str = _option("shapes", f"the data set: {', '.join(DATASETS)}, folder:PATH, npz:PATH", metavar="NAME")
    data_dir: str | None = _option(
        None,
        "folder with the data set's files, or where a relative PATH starts; none: cifar is downloaded",
        identity=False,
        metavar="DIR",
    )
    stored_side: int | None = _option(
        None,
        "shorter side, in pixels, that larger images of a folder are scaled down to when they are read; none: "
        "what the smallest crop needs, image size / sqrt(smallest crop area)",
        at_least=8,
    )
    memory_limit: float = _option(
        4.0, "GiB of pixels; a folder with more is decoded as it is needed", at_least=0, identity=False
    )
    data_on: str = _option(
        "auto",
        "where the images lie: device: all in its memory, taken there by number; auto: on one GPU, where they are few",
        choices=("auto", "host", "device"),
        identity=False,
    )
    train_on: str = _option(
        "train", "train on the train split, or on both splits (inflates results)", choices=("train", "all")
    )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The encoder f and the projection head g."""

    encoder: str = _option("resnet20", "the encoder f", choices=ENCODERS)
    stem: str = _option(
        "cifar",
        "first layer: 3x3 without pooling, or 7x7 with stride 2 and pooling",
        choices=("cifar", "imagenet"),
    )
    weights: str = _option(
        "random", "what f starts from: random, imagenet, or a file (with a / or . in it)", metavar="NAME|FILE"
    )
    projection_widths: tuple[int, ...] = _option(
        (256, 128), "widths of the projection head's layers; the last is the width of z", at_least=1
    )
    projection_batch_norm: str = _option(
        "none",
        "BatchNorm in the projection head: none, behind hidden layers, behind all; google: all, the last without shift",
        choices=("none", "hidden", "all", "google"),
    )
    image_size: int = _option(32, "side of a view, in pixels", at_least=8)
    input_mean: tuple[float, ...] | None = _option(
        None, "per channel, taken from pixels in [0, 1] before the encoder; one number a channel"
    )
    input_std: tuple[float, ...] | None = _option(
        None, "per channel, what pixels are divided by after that; one number a channel", above=0
    )


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """NT-Xent over all 2N views."""

    temperature: float = _option(0.2, "temperature of NT-Xent", at_least=0.001, at_most=10)
    loss_reduction: str = _option(
        "mean",
        "mean: over the 2N views (the paper); google: twice that, the sum of both directions' means (Google's code)",
        choices=("mean", "google"),
    )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer. The learning rate warms up linearly, then falls to 0 along a cosine."""

    optimizer: str = _option("adamw", "the optimizer", choices=OPTIMIZERS)
    learning_rate: float = _option(2e-3, "learning rate before scaling", above=0)
    learning_rate_scaling: str = _option(
        "none", "linear: times batch/256; sqrt: times sqrt(batch)", choices=("none", "linear", "sqrt")
    )
    momentum: float = _option(0.9, "momentum of lars and sgd", at_least=0, below=1)
    beta_1: float = _option(0.9, "decay of the first moment of adamw and lamb", at_least=0, below=1)
    beta_2: float = _option(0.999, "decay of the second moment of adamw and lamb", at_least=0, below=1)
    epsilon: float = _option(1e-8, "what adamw and lamb add to the root of the second moment", above=0)
    weight_decay: float = _option(1e-4, "weight decay of the variables of rank 2 and more", at_least=0)
    trust_coefficient: float = _option(0.001, "trust coefficient of lars", above=0)
    warmup_epochs: float = _option(1.0, "linear warm-up, in epochs; fractions are fine", at_least=0)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The training loop."""

    batch_size: int = _option(256, "images a step; the loss sees twice as many views", at_least=2)
    epochs: int = _option(12, "passes over the images", at_least=1)
    steps: int | None = _option(None, "steps to train, schedule included; overrides --epochs", at_least=1)
    seed: int = _option(0, "seed of weights, order of images and views", at_least=0, at_most=2**64 - 1)
    precision: str = _option(
        "auto",
        "what the encoder computes in; auto: what this device does fast",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    xla: str = _option("auto", "compile the step with XLA; auto: on a GPU", choices=("auto", "on", "off"))
    ops: str = _option(
        "native",
        "whose loss and views: this package's kernels or stock TensorFlow",
        choices=("native", "stock"),
    )
    micro_batch: str = _option(
        "0",
        "images whose memory a step needs at once, over all replicas; the loss sees the whole batch; 0: all of them; "
        "auto: the most that fit on a GPU",
        metavar="N|auto",
    )
    devices: str = _option(
        "1", "replicas of this process: all, a number of GPUs, or cpu:R for virtual devices", metavar="all|N|cpu:R"
    )
    batch_norm: str = _option(
        "sync",
        "BatchNorm over the micro-batch of all replicas, of each alone, or over groups of --ghost-batch images",
        choices=("sync", "local", "ghost"),
    )
    ghost_batch: int = _option(32, "images of a group of ghost BatchNorm", at_least=1)
    deterministic: bool = _option(True, "only kernels that give the same bits every time")
    steps_per_call: int = _option(8, "steps a host call makes", at_least=1, identity=False)
    checkpoint_every: int = _option(100, "steps between two checkpoints", at_least=1, identity=False)
    keep_checkpoints: int = _option(3, "how many checkpoints are kept", at_least=1, identity=False)
    knn_every: int = _option(1, "epochs between looks at k-NN; 0: only at the end", at_least=0, identity=False)


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything a run is made of. `preset` is a label: what counts are the values."""

    preset: str = "custom"
    views: ViewRecipe = ViewRecipe()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What belongs to one call of the command and not to the run.

    out: the run folder. fresh: start over beside a run that is there. preview: only draw the picture of
    views. profile: record the second host call.
    """

    out: Path
    fresh: bool = False
    preview: bool = False
    profile: bool = False


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "optimizer": OptimizerConfig,
    "loss": LossConfig,
    "views": ViewRecipe,
}


LOSS_FACTORS = {"mean": 1.0, "google": 2.0}  # of the mean over the 2N views, by the name of the convention

# Keras's preprocessing for its ImageNet weights ("caffe"): pixels in [0, 255] less these means, not divided. The
# encoder takes red, green, blue; it is the weights of its first layer that are turned round (`encoder.build`).
CAFFE = {
    "input_mean": (123.68 / 255, 116.779 / 255, 103.939 / 255),
    "input_std": (1 / 255, 1 / 255, 1 / 255),
}

# Presets


def jitter(strength: float) -> dict[str, Range]:
    """Ranges of the four colour operations at a jitter strength s (SimCLR, appendix A).

    Args:
        strength: s in [0, 2.5]; the paper has 1 for ImageNet and 0.5 for CIFAR-10.

    Returns:
        brightness, contrast and saturation in [max(0, 1 - 0.8 s), 1 + 0.8 s], hue in [-0.2 s, 0.2 s] turns.

    Raises:
        ConfigError: for a strength outside [0, 2.5].
    """
    if not 0 <= strength <= LARGEST_JITTER:
        raise ConfigError(f"--jitter-strength is {strength}: give at least 0 and at most {LARGEST_JITTER}")
    # Rounded, because 1 - 0.8 is 0.19999999999999996, and the ranges are shown and compared.
    factor = (round(max(0.0, 1 - 0.8 * strength), 9), round(1 + 0.8 * strength, 9))
    turn = round(0.2 * strength, 9)
    return {"brightness": factor, "contrast": factor, "saturation": factor, "hue": (-turn, turn)}


def shapes() -> Config:
    """The embedded shapes: ten drawn classes, 32x32 pixels, nothing to download.

    Shows a first user, in one command, an encoder that has learned without labels.
    Expected: k-NN of at least 0.93 on held-out shapes, where pixels and the untrained encoder stay below
    0.60.
    Cost: 546 steps of 128, less than five minutes on two CPU cores, evaluation and plots included.
    """
    return replace(
        Config(),
        preset="shapes",
        dataset="shapes",
        image_size=20,  # 0.4 times the work of 32, and the shapes are as plain
        batch_size=128,
        epochs=14,
        knn_every=4,
        learning_rate=6e-3,
        temperature=0.1,
        crop_area=(0.3, 1.0),
        **jitter(0.5),
    )


def cifar10_resnet20() -> Config:
    """CIFAR-10 with a 20-layer ResNet and the paper's views for CIFAR-10.

    SimCLR, appendix B.9, on the model of the shapes: crop area 0.08 to 1, jitter strength 0.5, no blur; views of 20
    pixels, 0.4 times the work of 32. Ten epochs: a first look at real images, not a result to compare.
    Expected: k-NN on the test set that rises over the run and ends above the pixels and the untrained encoder.
    Cost: 1,950 steps of 256, some twenty-five minutes on two CPU cores.
    """
    return replace(
        Config(),
        preset="cifar10-resnet20",
        dataset="cifar10",
        image_size=20,
        epochs=10,
        learning_rate=4e-3,
        **jitter(0.5),
    )


def cifar10_resnet50() -> Config:
    """CIFAR-10 with ResNet-50: the seed notes' model, on the train split and with the paper's views.

    SimCLR, appendix B.9 (crop area 0.08 to 1, jitter strength 0.5, no blur), with the head of the notes, 256-128, and a
    run that is short: 20 epochs of AdamW. `--stem imagenet` makes each step 15 times cheaper and h poorer.
    Expected: k-NN on the test set that rises over the run and ends above the pixels and the untrained encoder. Not the
    94 % of the paper, which are 1000 epochs (`simclr-b9`).
    Cost: 3,900 steps of 256. With the ImageNet stem about five minutes an epoch on two CPU cores; with the CIFAR stem
    of this preset, over an hour: for a GPU.
    """
    return replace(
        Config(),
        preset="cifar10-resnet50",
        dataset="cifar10",
        encoder="resnet50",
        epochs=20,
        learning_rate=1e-3,
        **jitter(0.5),
    )


def cifar10_resnet18() -> Config:
    """CIFAR-10 with ResNet-18 for 100 epochs: the field's standard encoder at a price that one GPU pays in minutes.

    The recipe of `kobak` with twice its learning rate, as its author has it for 100 epochs.
    Expected: k-NN 83 %, linear 86 %: what that author reports (83.2 and 85.6), not yet measured here.
    Cost: 9,700 steps of 512; 20 minutes on an A100 for that author. Not for a CPU.
    """
    return replace(kobak(), preset="cifar10-resnet18", epochs=100, learning_rate=0.06)


def day29() -> Config:
    """The seed notes of this project as they were written, their slips mended (README, "From the notes to the code").

    CIFAR-10, train and test images together; pixels in [-1, 1]; a random 28x28 crop of the 32x32 image, resized to 32;
    flip; brightness by adding up to 0.5 on the [-1, 1] scale, contrast by 0.1 to 0.9, no clipping; Keras's ResNet-50
    with its ImageNet weights; head 256-ReLU-128; tau 0.5. Mended: the results of flip and contrast were dropped, z was
    normalised over the wrong axis, and the loss compared N x N in one direction. Ours, because nothing is handed down:
    AdamW 1e-3, batches of 256, 5 epochs.
    One more mend: the weights were trained on blue, green, red, and the notes gave them red, green, blue; here each
    colour meets its own weights. Their scale of pixels, [-1, 1], stays the notes'.
    Expected: k-NN that is flattered, because the test images are trained on; every table says so.
    Cost: 1,170 steps of 256, about six minutes an epoch on two CPU cores; downloads 95 MB of weights, which
    `--weights random` does without.
    """
    return replace(
        Config(),
        preset="day29",
        dataset="cifar10",
        train_on="all",
        encoder="resnet50",
        stem="imagenet",
        weights="imagenet",
        input_mean=(0.5, 0.5, 0.5),
        input_std=(0.5, 0.5, 0.5),
        epochs=5,
        learning_rate=1e-3,
        temperature=0.5,
        crop_area=(28**2 / 32**2, 28**2 / 32**2),
        crop_aspect=(1.0, 1.0),
        jitter_probability=1.0,
        brightness=(1.0, 1.0),
        brightness_shift=(-0.25, 0.25),  # +-0.5 where pixels are in [-1, 1]
        contrast=(0.1, 0.9),
        saturation=(1.0, 1.0),
        hue=(0.0, 0.0),
        clip=False,
        grey_probability=0.0,
    )


def simclr_b9() -> Config:
    """The paper's own CIFAR-10 run: SimCLR, appendix B.9, ResNet-50, batch 1024, 1000 epochs.

    LARS with linear scaling (0.5, 1.0 and 1.5 were tried; 1.0 here), decay 1e-6, ten epochs of warm-up, tau 0.5, jitter
    strength 0.5, no blur, head 2048-128. The loss is the mean over the 2N views. Not said there and so ours: a head
    without BatchNorm, He's initial weights.
    Expected: linear 94.0 %, the best of the paper's sweep; the best that was reproduced in public is 93.7 %.
    Cost: 48,000 steps of 1024, ten hours on an A100 at the 37 s an epoch that others report.
    """
    return replace(
        Config(),
        preset="simclr-b9",
        dataset="cifar10",
        encoder="resnet50",
        projection_widths=(2048, 128),
        optimizer="lars",
        learning_rate=1.0,
        learning_rate_scaling="linear",
        weight_decay=1e-6,
        warmup_epochs=10,
        temperature=0.5,
        batch_size=1024,
        epochs=1000,
        **jitter(0.5),
    )


def google_readme() -> Config:
    """The command for CIFAR-10 in the README of google-research/simclr: ResNet-18, batch 512, 1000 epochs.

    LARS 1.0 with linear scaling, decay 1e-4, ten epochs of warm-up, tau 0.5, jitter strength 0.5, no blur; a head of
    three layers, 512-512-128, BatchNorm behind each, the last without a shift; the loss is twice the paper's mean.
    Not reproduced: its initial weights (truncated normal of variance 1/fan-in; He's here), and its resize of a crop
    (bicubic, not antialiased; bilinear and antialiased here).
    Expected: linear about 91 %, says that README.
    Cost: 97,000 steps of 512; under ten hours on a P100 for its users.
    """
    return replace(
        Config(),
        preset="google-readme",
        dataset="cifar10",
        encoder="resnet18",
        projection_widths=(512, 512, 128),
        projection_batch_norm="google",
        loss_reduction="google",
        optimizer="lars",
        learning_rate=1.0,
        learning_rate_scaling="linear",
        weight_decay=1e-4,
        warmup_epochs=10,
        temperature=0.5,
        batch_size=512,
        epochs=1000,
        **jitter(0.5),
    )


def kobak() -> Config:
    """dkobak/simclr-cifar10 (2025): ResNet-18, batch 512, 1000 epochs of SGD; the best public numbers.

    SGD 0.03 with linear scaling, momentum 0.9, decay 5e-4, cosine, no warm-up; tau 0.5; crop area 0.2 to 1, jitter
    strength 0.5, grey 0.1, no blur; head 1024-128 without BatchNorm; the loss is the mean over the 2N views.
    Not reproduced: there weight decay is on biases and BatchNorm too; the learning rate multiplies the velocity, not
    the gradient; contrast and saturation are torchvision's; each view goes through the encoder on its own, so that
    BatchNorm sees N rows, here 2N.
    Expected: 10-NN 91.4 %, linear 91.7 %, linear with augmentation 91.9 +- 0.1 %.
    Cost: 97,000 steps of 512; 3.3 hours on an A100 for its author.
    """
    return replace(
        Config(),
        preset="kobak",
        dataset="cifar10",
        encoder="resnet18",
        projection_widths=(1024, 128),
        optimizer="sgd",
        learning_rate=0.03,
        learning_rate_scaling="linear",
        weight_decay=5e-4,
        warmup_epochs=0,
        temperature=0.5,
        batch_size=512,
        epochs=1000,
        crop_area=(0.2, 1.0),
        grey_probability=0.1,
        **jitter(0.5),
    )


def solo() -> Config:
    """solo-learn's SimCLR for CIFAR-10: ResNet-18, batch 256, 1000 epochs of LARS, with blur.

    LARS 0.4 with linear scaling, trust coefficient 0.02, decay 1e-4, ten epochs of warm-up; tau 0.2; crop area 0.08 to
    1, jitter strength 1, grey 0.2, blur 0.5; head 2048-256 without BatchNorm; pixels by CIFAR-10's mean and deviation;
    the loss is the mean over the 2N views.
    Not reproduced: its LARS steps by the smaller of trust ratio and learning rate (clip_lr), not by their product;
    float16 (give --precision float16); its blur is not cut to a kernel of 3 pixels; contrast and saturation are
    torchvision's; each view goes through the encoder on its own.
    Expected: linear 90.7 %, by a probe trained along with the encoder.
    Cost: 195,000 steps of 256; no time is published.
    """
    return replace(
        Config(),
        preset="solo",
        dataset="cifar10",
        encoder="resnet18",
        projection_widths=(2048, 256),
        input_mean=(0.4914, 0.4822, 0.4465),
        input_std=(0.2470, 0.2435, 0.2616),
        optimizer="lars",
        learning_rate=0.4,
        learning_rate_scaling="linear",
        trust_coefficient=0.02,
        weight_decay=1e-4,
        warmup_epochs=10,
        temperature=0.2,
        batch_size=256,
        epochs=1000,
        blur_probability=0.5,
        **jitter(1.0),
    )


def lightly() -> Config:
    """The SimCLR row of lightly's CIFAR-10 benchmark: ResNet-18, batch 512, 800 epochs of SGD.

    SGD 0.06 a batch of 128 (0.12 for 256), scaled linearly, momentum 0.9, decay 5e-4, cosine, no warm-up; tau 0.5; crop
    area 0.08 to 1, jitter strength 0.5, grey 0.2, no blur; head 512-128, BatchNorm behind both layers; pixels by
    ImageNet's mean and deviation; the loss is the mean over the 2N views.
    Not reproduced: there weight decay is on biases and BatchNorm too; the learning rate multiplies the velocity;
    contrast and saturation are torchvision's; each view goes through the encoder on its own.
    Expected: 200-NN 87.9 %, the highest over the epochs on the test set; the last epoch, which is reported here, is at
    most that. With --epochs 200, 84.8 %.
    Cost: 77,600 steps of 512; 5.5 hours on an A6000 for its authors.
    """
    return replace(
        Config(),
        preset="lightly",
        dataset="cifar10",
        encoder="resnet18",
        projection_widths=(512, 128),
        projection_batch_norm="all",
        input_mean=(0.485, 0.456, 0.406),
        input_std=(0.229, 0.224, 0.225),
        optimizer="sgd",
        learning_rate=0.12,
        learning_rate_scaling="linear",
        weight_decay=5e-4,
        warmup_epochs=0,
        temperature=0.5,
        batch_size=512,
        epochs=800,
        **jitter(0.5),
    )


PRESETS: dict[str, Callable[[], Config]] = {
    "shapes": shapes,
    "cifar10-resnet20": cifar10_resnet20,
    "cifar10-resnet50": cifar10_resnet50,
    "cifar10-resnet18": cifar10_resnet18,
    "day29": day29,
    "simclr-b9": simclr_b9,
    "google-readme": google_readme,
    "kobak": kobak,
    "solo": solo,
    "lightly": lightly,
}
PRESET_OF_DATASET = {"shapes": "shapes"}  # where no preset is named
PRESET_OF_PHOTOGRAPHS = "cifar10-resnet20"  # every other data set


def preset(name: str) -> Config:
    """The preset of that name.

    Raises:
        ConfigError: for a name that is none, with the nearest.
    """
    if name not in PRESETS:
        raise ConfigError(_no_such("--preset", name, PRESETS))
    return PRESETS[name]()


def stored_side(config: Config) -> int:
    """Pixels of the shorter side that images of a folder are stored with at most.

    Where none is given, so many that the smallest crop still has a pixel for every pixel of a view.
    """
    needed = math.ceil(config.model.image_size / math.sqrt(config.views.crop_area[0]))
    return config.data.stored_side or max(8, needed)


def colourless(config: Config) -> Config:
    """The config for images that are not RGB: without saturation, hue and grey views.

    On grey images nothing is lost: these leave a grey pixel as it is.
    """
    return replace(config, saturation=(1.0, 1.0), hue=(0.0, 0.0), grey_probability=0.0)


# The fields as data: one walk serves flags, text, checks and comparison


class _Field(NamedTuple):
    """One setting: where it lives, what it holds, and its rule."""

    section: str
    name: str
    item: type  # bool, int, float or str
    length: int  # 1 value, 2 for a range, 0 for one or more
    optional: bool  # None is a value too
    rule: Mapping[str, Any]

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def _field(section: str, field: dataclasses.Field[Any], hint: Any) -> _Field:
    """One dataclass field, its type hint taken apart."""
    optional = type(None) in typing.get_args(hint)
    if optional:
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is not tuple:
        return _Field(section, field.name, hint, 1, optional, field.metadata)
    item, last = typing.get_args(hint)
    return _Field(section, field.name, item, 0 if last is Ellipsis else 2, optional, field.metadata)


@functools.cache
def _fields() -> dict[str, _Field]:
    """Every setting of every section by its name, in the order of the sections."""
    every = [
        _field(section, field, typing.get_type_hints(kind)[field.name])
        for section, kind in SECTIONS.items()
        for field in dataclasses.fields(kind)
    ]
    return {field.name: field for field in every}


def _value(config: Config, field: _Field) -> Any:
    return getattr(getattr(config, field.section), field.name)


# Words for messages


def _text(value: Any) -> str:
    """A value as a user would type it."""
    if isinstance(value, (tuple, list)):
        return " ".join(_text(part) for part in value)
    return "none" if value is None else str(value)


def _nearest(word: str, known: Iterable[str]) -> str:
    """': did you mean X?', or nothing where nothing is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f": did you mean {near[0]}?" if near else ""


def _no_such(what: str, word: str, known: Iterable[str]) -> str:
    return f"there is no {what} '{word}'{_nearest(word, known)} (known: {', '.join(known)})"


def _wanted(field: _Field) -> str:
    """What a field takes, in words."""
    words = {int: "whole number", float: "number", bool: "truth value", str: "text"}
    phrases = {"above": "above", "at_least": "at least", "below": "below", "at_most": "at most"}
    bounds = " and ".join(f"{phrases[key]} {field.rule[key]}" for key in phrases if key in field.rule)
    word, each = words[field.item], ", each" if field.length != 1 else ","
    form = {1: f"a {word}", 2: f"two {word}s, the low end and then the high end", 0: f"one or more {word}s"}
    return form[field.length] + (f"{each} {bounds}" if bounds else "")


def _refuse(field: _Field, value: Any) -> NoReturn:
    raise ConfigError(f"{field.flag} is {_text(value)}: give {_wanted(field)}")


# Typed values, and the checks


def _item(field: _Field, value: Any) -> Any:
    """One value in the field's own type; a whole number may stand where a float lives.

    Raises:
        ConfigError: for a value of another type.
    """
    if field.item is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if type(value) is not field.item:
        _refuse(field, value)
    return value


def _typed(field: _Field, value: Any) -> Any:
    """The field's whole value in its own type: None, one value, or a tuple of values (a list will do).

    Raises:
        ConfigError: for a value of another type or a tuple of another length.
    """
    if value is None and field.optional:
        return None
    if field.length == 1:
        return _item(field, value)
    if not isinstance(value, (tuple, list)) or not value or field.length not in (0, len(value)):
        _refuse(field, value)
    return tuple(_item(field, part) for part in value)


def _inside(value: float, rule: Mapping[str, Any]) -> bool:
    """Whether a number is finite (the strict bounds see to that) and keeps its field's bounds."""
    return (
        value > rule.get("above", -math.inf)
        and value >= rule.get("at_least", -math.inf)
        and value < rule.get("below", math.inf)
        and value <= rule.get("at_most", math.inf)
    )


def _check(field: _Field, value: Any) -> None:
    """Type, choices, bounds and order of one field.

    Raises:
        ConfigError: for a value that breaks one of them.
    """
    value = _typed(field, value)
    choices = field.rule.get("choices")
    if choices and value not in choices:
        raise ConfigError(_no_such(field.flag, value, choices))
    if value is None or field.item in (bool, str):
        return
    parts = value if isinstance(value, tuple) else (value,)
    if not all(_inside(part, field.rule) for part in parts) or (field.length == 2 and parts[0] > parts[1]):
        _refuse(field, value)


def _check_names(config: Config) -> None:
    """The data set, and what the encoder starts from."""
    name, weights = config.data.dataset, config.model.weights
    if name in DATASET_FORMS:
        raise ConfigError(f"--dataset {name} has no path behind it: give {name}PATH")
    if name not in DATASETS and not name.startswith(DATASET_FORMS):
        raise ConfigError(_no_such("--dataset", name, DATASETS + DATASET_FORMS))
    if weights not in NAMED_WEIGHTS and not re.search(r"[/.]", weights):
        raise ConfigError(_no_such("--weights", weights, NAMED_WEIGHTS) + "; a file has a / or . in it")
    if weights == "imagenet" and config.model.encoder != "resnet50":
        raise ConfigError(f"--weights imagenet is for --encoder resnet50 only, not {config.model.encoder}")


def _check_numbers(config: Config) -> None:
    """Numbers that must agree with one another."""
    train, warmup = config.train, config.optimizer.warmup_epochs
    if train.steps is None and warmup > train.epochs:
        raise ConfigError(f"--warmup-epochs is {warmup}: give at most the {train.epochs} of --epochs")
    mean, std = config.model.input_mean, config.model.input_std
    if len(mean or ()) != len(std or ()):
        raise ConfigError(
            f"--input-mean is {_text(mean)} and --input-std is {_text(std)}: give both, one number a channel"
        )


def _check_replicas(config: Config) -> None:
    """Micro-batches and devices, as far as they can be told without the machine."""
    train = config.train
    if not re.fullmatch(r"\d{1,9}|auto", train.micro_batch):
        raise ConfigError(
            f"--micro-batch is {train.micro_batch}: give a whole number of images, 0 for the batch, or auto"
        )
    micro = 0 if train.micro_batch == "auto" else int(train.micro_batch)
    if micro and train.batch_size % micro:
        raise ConfigError(
            f"--micro-batch is {micro} and leaves an uneven tail of the {train.batch_size} images of a batch: give a "
            "divisor"
        )
    if not re.fullmatch(r"all|(cpu:)?[1-9]\d{0,3}", train.devices):
        raise ConfigError(f"--devices is {train.devices}: give all, a number of GPUs, or cpu:R")


def validate(config: Config) -> None:
    """Refuses a configuration that cannot be trained, before any work is done.

    What only the data can tell (a batch larger than the data set, a missing folder) is refused where it is
    read.

    Raises:
        ConfigError: names the first setting that is wrong, its value, and what to give instead.
    """
    for field in _fields().values():
        _check(field, _value(config, field))
    _check_names(config)
    _check_numbers(config)
    _check_replicas(config)


# config -> text -> config


def replace(config: Config, **values: Any) -> Config:
    """The config with some settings changed, each by its own name: `replace(config, temperature=0.5)`.

    Raises:
        ConfigError: for a name that is no setting, or a value of the wrong type.
    """
    label = values.pop("preset", config.preset)
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for name, value in values.items():
        if name not in _fields():
            raise ConfigError(f"there is no setting '{name}'{_nearest(name, _fields())}")
        field = _fields()[name]
        sections[field.section][name] = _typed(field, value)
    parts = {name: dataclasses.replace(getattr(config, name), **changed) for name, changed in sections.items()}
    return dataclasses.replace(config, preset=label, **parts)


def to_dict(config: Config) -> dict[str, Any]:
    """The config as JSON holds it: one object a section, tuples as lists. `from_dict` gives it back."""
    text: dict[str, Any] = {"preset": config.preset, **{section: {} for section in SECTIONS}}
    for field in _fields().values():
        value = _typed(field, _value(config, field))
        text[field.section][field.name] = list(value) if isinstance(value, tuple) else value
    return text


def from_dict(values: Mapping[str, Any]) -> Config:
    """The config of `to_dict`; an absent setting takes its field's default, so that older runs still open.

    Raises:
        ConfigError: for a section or setting that this version does not know, by name, and for a wrong type.
    """
    for section in values:
        if section != "preset" and not (section in SECTIONS and isinstance(values[section], Mapping)):
            raise ConfigError(f"there is no section '{section}' of settings{_nearest(section, SECTIONS)}")
    for section in SECTIONS:
        for name in values.get(section, ()):
            if name not in _fields() or _fields()[name].section != section:
                raise ConfigError(f"there is no setting '{section}.{name}'{_nearest(name, _fields())}")
    settings = {name: value for section in SECTIONS for name, value in values.get(section, {}).items()}
    return replace(Config(), preset=str(values.get("preset", Config.preset)), **settings)


def identity(config: Config) -> dict[str, Any]:
    """The settings that make a run this run, by name."""
    ours = (field for field in _fields().values() if field.rule.get("identity", True))
    return {field.name: _typed(field, _value(config, field)) for field in ours}


def difference(before: Config, after: Config) -> list[str]:
    """What keeps `after` from resuming a run of `before`: one line a setting, "temperature: 0.2 -> 0.5"."""
    old, new = identity(before), identity(after)
    return [f"{name}: {_text(old[name])} -> {_text(new[name])}" for name in old if old[name] != new[name]]


def config_hash(config: Config) -> str:
    """Sixteen hexadecimal digits that two configs share exactly when `difference` finds none (SHA-256)."""
    return hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()[:16]


def default_out(config: Config) -> Path:
    """The run folder where none is asked for: runs/PRESET, with the seed behind it where that is not 0.

    A data set other than the preset's own gives its name in place of the preset's.
    """
    named = config.preset in PRESETS and PRESETS[config.preset]().data.dataset == config.data.dataset
    name = config.preset if named else config.data.dataset
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
    return Path("runs") / (f"{name}-seed{config.train.seed}" if config.train.seed else name)


# Command line -> config


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Lines as written, and room for the longest flags."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


class FlagParser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence and name the nearest flag to one it does not know."""

    def __init__(self, **options: Any) -> None:
        """As `argparse.ArgumentParser`, without abbreviated flags and with its text left as it is written."""
        options = {
            "allow_abbrev": False,
            "formatter_class": _HelpFormatter,
            "usage": "%(prog)s [flags]",
            **options,
        }
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")

    def parse_strictly(self, argv: Sequence[str]) -> argparse.Namespace:
        """The flags of a command line; an unknown one ends the program."""
        known, extra = self.parse_known_args(argv)
        if extra:
            word = next((word for word in extra if word.startswith("-")), extra[0]).split("=")[0]
            # The parser's own table of flags: argparse offers no public one.
            flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
            self.error(f"unknown argument {word}{_nearest(word, flags) or ': --help lists what there is'}")
        return known


def _reader(field: _Field) -> Callable[[str], Any]:
    """Text -> one value of the field's type."""
    noun = "whole number" if field.item is int else "number"

    def read(text: str) -> Any:
        try:
            return field.item(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not a {noun}") from None

    return read


def _shown(value: Any) -> str:
    """A default for `--help`: yes or no, and floats to six digits."""
    if isinstance(value, tuple):
        return " ".join(_shown(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else _text(value)


def _metavar(field: _Field) -> str | tuple[str, ...]:
    if field.length == 2:
        return ("LOW", "HIGH")
    if "choices" in field.rule:
        return "{" + ",".join(field.rule["choices"]) + "}"
    return field.rule.get("metavar", "N" if field.item is int else "X")


def _add_flag(group: argparse._ArgumentGroup, field: _Field, default: Any) -> None:
    """One setting as one flag; what is not given stays None, so that the preset's value stands."""
    text = f"{field.rule['help']} (default: {_shown(default)})".replace("%", "%%")
    if field.item is bool:
        group.add_argument(field.flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        return
    count = {1: None, 2: 2, 0: "+"}[field.length]
    group.add_argument(field.flag, type=_reader(field), nargs=count, metavar=_metavar(field), help=text)


EXAMPLES = """\
examples:
  python -m lowlevel_simclr.train
      the embedded shapes: minutes on a CPU, nothing to download
  python -m lowlevel_simclr.train --seed 1 --temperature 0.5 --out runs/warm
      the same with another seed and temperature, in a folder of its own
  python -m lowlevel_simclr.train --dataset cifar10 --data-dir DIR
      CIFAR-10 from its standard batches; without --data-dir it is downloaded
  python -m lowlevel_simclr.train --dataset folder:PICTURES
      your own images: JPEG, PNG, WebP, BMP, in any tree of folders
  python -m lowlevel_simclr.train --preset cifar10-resnet20 --data-dir DIR --preview
      only the picture of what the views look like

The same command again resumes the run; --fresh starts over beside it."""


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").partition("\n")[0]


def _epilog() -> str:
    """The presets by the first line of their docstrings, then the examples."""
    lines = [f"  {name:<18}{_first_line(make)}" for name, make in PRESETS.items()]
    return "\n".join(["presets:", *lines, "", EXAMPLES])


def _parser(base: Config, description: str, prog: str) -> FlagParser:
    """Every flag, with the defaults of the preset in `base`."""
    parser = FlagParser(prog=prog, description=description, epilog=_epilog())
    run = parser.add_argument_group("run")
    start = f"where every setting starts (default: the data set's own, here {base.preset})"
    run.add_argument("--preset", metavar="NAME", help=start)
    run.add_argument("--out", metavar="DIR", type=Path, help="the run folder (default: runs/PRESET)")
    run.add_argument("--fresh", action="store_true", help="start over in DIR-2, DIR-3 ... if DIR holds a run")
    run.add_argument("--preview", action="store_true", help="draw the picture of views, and stop")
    run.add_argument("--profile", action="store_true", help="trace the second host call, and print where it goes")
    for section, kind in SECTIONS.items():
        group = parser.add_argument_group(section, _first_line(kind))
        if section == "views":
            group.add_argument(
                "--jitter-strength",
                type=float,
                metavar="S",
                help="sets brightness, contrast and saturation to 1 +- 0.8 S, hue to +- 0.2 S",
            )
        for field in _fields().values():
            if field.section == section:
                _add_flag(group, field, _value(base, field))
    return parser


def _starting_point(argv: Sequence[str], prog: str) -> Config:
    """The preset that a command line names, or else the one of its data set."""
    first = FlagParser(prog=prog, add_help=False)
    first.add_argument("--preset")
    first.add_argument("--dataset", default="shapes")
    known, _ = first.parse_known_args(argv)
    try:
        return preset(known.preset or PRESET_OF_DATASET.get(known.dataset, PRESET_OF_PHOTOGRAPHS))
    except ConfigError as error:
        first.error(str(error))


def _override(base: Config, given: Mapping[str, Any]) -> Config:
    """The flags that were given, over the preset; single ranges win over --jitter-strength."""
    values = {name: value for name, value in given.items() if name in _fields()}
    if given.get("jitter_strength") is not None:
        values = {**jitter(given["jitter_strength"]), **values}
    if "epochs" in values and "steps" not in values:
        values["steps"] = None  # a preset's steps must not overrule the epochs that were asked for
    config = replace(base, **values)
    if values.get("weights") == "imagenet" and config.model.input_mean is None and config.model.input_std is None:
        config = replace(config, **CAFFE)  # what these weights were trained on
    validate(config)
    return config


def parse(
    argv: Sequence[str] | None = None, description: str = "", prog: str = "python -m lowlevel_simclr.train"
) -> tuple[Config, RunOptions]:
    """Command line -> what is run, and how this call runs it.

    The preset comes first (--preset, or the data set's own), flags override it. `--help` prints and ends the
    program; a flag or value that cannot be ends it with one sentence on stderr and exit code 2.

    Args:
        argv: the arguments; None takes the program's own.
        description: what the program does, for `--help`.
        prog: how the program is called, for `--help` and errors.
    """
    argv = sys.argv[1:] if argv is None else argv
    base = _starting_point(argv, prog)
    parser = _parser(base, description, prog)
    given = {name: value for name, value in vars(parser.parse_strictly(argv)).items() if value is not None}
    try:
        config = _override(base, given)
    except ConfigError as error:
        parser.error(str(error))
    return config, RunOptions(given.get("out", default_out(config)), given["fresh"], given["preview"], given["profile"])
