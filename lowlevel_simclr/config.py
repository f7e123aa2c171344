"""What a run is: frozen dataclasses in the paper's words, checks, and config -> text -> config.

Every field of every section is one flag of the command line, so names are unique over all sections and each
field carries its own help, bounds and choices. Only entry points read a `Config`; everything below them takes
plain values.

A field is part of a run's *identity* when it can change the trained weights, if only in the last bit: a run
is resumed only under the same identity. Not part of it (`identity=False`) are where the images lie, how often
a checkpoint is written, how many are kept, how many steps one host call makes and how often k-NN looks; they
may change from one session of a run to the next. Settings that say "auto" are to be replaced by what was
chosen before the config is written or compared: what was chosen is identity, that it was chosen automatically
is not.

To add a setting: add a field. Named starting points are in `presets.py`, flags in `command_line.py`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

Range = tuple[float, float]  # (low, high), both ends included

DATASETS = ("shapes", "cifar10", "cifar100")
DATASET_FORMS: tuple[str, ...] = ("folder:", "npz:")  # prefixes that take a path behind them, such as "folder:"
ENCODERS = ("resnet20", "resnet18", "resnet34", "resnet50")
OPTIMIZERS = ("adamw", "lamb", "lars", "sgd")
NAMED_WEIGHTS = ("random", "imagenet")


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


class Field(NamedTuple):
    """One setting: where it lives, what it holds, and its rule."""

    section: str
    name: str
    item: type  # bool, int, float or str
    length: int  # 1 value, 2 for a range, 0 for one or more
    optional: bool  # None is a value too
    rule: Mapping[str, Any]

    @property
    def flag(self) -> str:
        """As it is typed."""
        return "--" + self.name.replace("_", "-")


def _field(section: str, field: dataclasses.Field[Any], hint: Any) -> Field:
    """One dataclass field, its type hint taken apart."""
    optional = type(None) in typing.get_args(hint)
    if optional:
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is not tuple:
        return Field(section, field.name, hint, 1, optional, field.metadata)
    item, last = typing.get_args(hint)
    return Field(section, field.name, item, 0 if last is Ellipsis else 2, optional, field.metadata)


@functools.cache
def fields() -> dict[str, Field]:
    """Every setting of every section by its name, in the order of the sections."""
    every = [
        _field(section, field, typing.get_type_hints(kind)[field.name])
        for section, kind in SECTIONS.items()
        for field in dataclasses.fields(kind)
    ]
    return {field.name: field for field in every}


def value_of(config: Config, field: Field) -> Any:
    """The value of a setting."""
    return getattr(getattr(config, field.section), field.name)


# Words for messages


def shown_text(value: Any) -> str:
    """A value as a user would type it."""
    if isinstance(value, (tuple, list)):
        return " ".join(shown_text(part) for part in value)
    return "none" if value is None else str(value)


def nearest(word: str, known: Iterable[str]) -> str:
    """': did you mean X?', or nothing where nothing is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f": did you mean {near[0]}?" if near else ""


def no_such(what: str, word: str, known: Iterable[str]) -> str:
    """The sentence for a name that is none."""
    return f"there is no {what} '{word}'{nearest(word, known)} (known: {', '.join(known)})"


def _wanted(field: Field) -> str:
    """What a field takes, in words."""
    words = {int: "whole number", float: "number", bool: "truth value", str: "text"}
    phrases = {"above": "above", "at_least": "at least", "below": "below", "at_most": "at most"}
    bounds = " and ".join(f"{phrases[key]} {field.rule[key]}" for key in phrases if key in field.rule)
    word, each = words[field.item], ", each" if field.length != 1 else ","
    form = {1: f"a {word}", 2: f"two {word}s, the low end and then the high end", 0: f"one or more {word}s"}
    return form[field.length] + (f"{each} {bounds}" if bounds else "")


def _refuse(field: Field, value: Any) -> NoReturn:
    raise ConfigError(f"{field.flag} is {shown_text(value)}: give {_wanted(field)}")


# Typed values, and the checks


def _item(field: Field, value: Any) -> Any:
    """One value in the field's own type; a whole number may stand where a float lives.

    Raises:
        ConfigError: for a value of another type.
    """
    if field.item is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if type(value) is not field.item:
        _refuse(field, value)
    return value


def _typed(field: Field, value: Any) -> Any:
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


def _check(field: Field, value: Any) -> None:
    """Type, choices, bounds and order of one field.

    Raises:
        ConfigError: for a value that breaks one of them.
    """
    value = _typed(field, value)
    choices = field.rule.get("choices")
    if choices and value not in choices:
        raise ConfigError(no_such(field.flag, value, choices))
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
        raise ConfigError(no_such("--dataset", name, DATASETS + DATASET_FORMS))
    if weights not in NAMED_WEIGHTS and not re.search(r"[/.]", weights):
        raise ConfigError(no_such("--weights", weights, NAMED_WEIGHTS) + "; a file has a / or . in it")
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
            f"--input-mean is {shown_text(mean)} and --input-std is {shown_text(std)}: give both, one number a channel"
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
    for field in fields().values():
        _check(field, value_of(config, field))
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
        if name not in fields():
            raise ConfigError(f"there is no setting '{name}'{nearest(name, fields())}")
        field = fields()[name]
        sections[field.section][name] = _typed(field, value)
    parts = {name: dataclasses.replace(getattr(config, name), **changed) for name, changed in sections.items()}
    return dataclasses.replace(config, preset=label, **parts)


def to_dict(config: Config) -> dict[str, Any]:
    """The config as JSON holds it: one object a section, tuples as lists. `from_dict` gives it back."""
    text: dict[str, Any] = {"preset": config.preset, **{section: {} for section in SECTIONS}}
    for field in fields().values():
        value = _typed(field, value_of(config, field))
        text[field.section][field.name] = list(value) if isinstance(value, tuple) else value
    return text


def from_dict(values: Mapping[str, Any]) -> Config:
    """The config of `to_dict`; an absent setting takes its field's default, so that older runs still open.

    Raises:
        ConfigError: for a section or setting that this version does not know, by name, and for a wrong type.
    """
    for section in values:
        if section != "preset" and not (section in SECTIONS and isinstance(values[section], Mapping)):
            raise ConfigError(f"there is no section '{section}' of settings{nearest(section, SECTIONS)}")
    for section in SECTIONS:
        for name in values.get(section, ()):
            if name not in fields() or fields()[name].section != section:
                raise ConfigError(f"there is no setting '{section}.{name}'{nearest(name, fields())}")
    settings = {name: value for section in SECTIONS for name, value in values.get(section, {}).items()}
    return replace(Config(), preset=str(values.get("preset", Config.preset)), **settings)


def identity(config: Config) -> dict[str, Any]:
    """The settings that make a run this run, by name."""
    ours = (field for field in fields().values() if field.rule.get("identity", True))
    return {field.name: _typed(field, value_of(config, field)) for field in ours}


def difference(before: Config, after: Config) -> list[str]:
    """What keeps `after` from resuming a run of `before`: one line a setting, "temperature: 0.2 -> 0.5"."""
    old, new = identity(before), identity(after)
    return [f"{name}: {shown_text(old[name])} -> {shown_text(new[name])}" for name in old if old[name] != new[name]]


def config_hash(config: Config) -> str:
    """Sixteen hexadecimal digits that two configs share exactly when `difference` finds none (SHA-256)."""
    return hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()[:16]
