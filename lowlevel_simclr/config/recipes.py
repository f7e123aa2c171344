"""Chooses settings of a run with --budget (a time limit), from the measured speed and the settings that the user gave.

A recipe is a set of settings for small photographs on a CPU. `bench.learning.search` tried its settings one by one, and
`bench/learning/SEARCH.md` has the results. For other images, only the number of steps and the warm-up are chosen. If
the user names a preset, only the number of steps is chosen.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from lowlevel_simclr.config.fields import get_value, list_fields
from lowlevel_simclr.config.identity import replace
from lowlevel_simclr.config.presets import PRESET_OF_PHOTOGRAPHS, load_preset
from lowlevel_simclr.config.settings import Config
from lowlevel_simclr.config.validation import validate

WARMUP = 0.1  # the share of the training that is warm-up, if the user gives no --warmup-epochs
ON_GPU = "cifar10-resnet18"  # the preset for small photographs on a GPU; its time on a GPU is not measured yet
TOGETHER = {  # if the user gives the setting on the left, those on the right also keep their values
    "encoder": ("stem",),
    "image_size": ("image_sizes", "evaluation_size"),
    "image_sizes": ("image_size", "evaluation_size"),
    "optimizer": ("learning_rate", "learning_rate_scaling"),
    "learning_rate_scaling": ("learning_rate",),
}


class Recipe(NamedTuple):
    """Settings for every budget that allows at least `least_pairs` pairs.

    A pair is both views of one image. A view is a random crop with changed colours.

    Attributes:
        least_pairs: number of pairs that the budget must allow at the measured speed of the preset.
        settings: the settings by name.
        why: the end of a sentence that begins with "because".
    """

    least_pairs: float
    settings: dict[str, Any]
    why: str


TAKEN_ON_GPU = (  # on a GPU, these settings are taken from the preset ON_GPU
    "encoder",
    "projection_widths",
    "optimizer",
    "learning_rate",
    "learning_rate_scaling",
    "weight_decay",
    "temperature",
    "batch_size",
    "crop_area",
    "grey_probability",
    "image_size",
)
# For small photographs on a CPU. The speed is measured with these settings.
ON_CPU: dict[str, Any] = {
    "encoder": "resnet8x4",
    "stem": "half",
    "image_size": 16,
    "evaluation_size": 32,
    "optimizer": "adamw",
    "learning_rate": 4e-3,
    "temperature": 0.1,
    "crop_area": (0.2, 1.0),
}
# What the settings of ON_CPU are replaced by, in the order of `least_pairs`. The last recipe whose `least_pairs` the
# budget allows is chosen.
RECIPES = (Recipe(0, {}, "of all settings that were tried for CIFAR-10, these learned most in a given time on a CPU"),)

# Every setting that a budget may choose, besides the number of steps and the speed.
CHOSEN = {*TAKEN_ON_GPU, *ON_CPU, "image_sizes", "warmup_epochs"}


class Choice(NamedTuple):
    """The chosen configuration, and the reason: the end of a sentence that begins with "because"."""

    config: Config
    why: str


def choose_base(config: Config, given: Collection[str] | None, gpu: bool) -> Config:
    """Return the configuration whose speed is to be measured.

    Args:
        config: the configuration that the user gave.
        given: the names of the settings that the user gave. None: the user named a preset or a file of settings.
        gpu: whether the run is on a GPU.

    Raises:
        ConfigError: if a setting that the user gave does not fit the others.
    """
    if given is None or config.preset != PRESET_OF_PHOTOGRAPHS:
        return config
    usual = load_preset(ON_GPU)
    values = {name: get_setting(usual, name) for name in TAKEN_ON_GPU} if gpu else ON_CPU
    base = replace(config, **_drop_given(values, given))
    validate(base)
    return base


def choose_recipe(config: Config, given: Collection[str] | None, pairs: float, gpu: bool) -> Choice:
    """Return the configuration for a budget, apart from the number of steps.

    Settings that the user gave do not change.

    Args:
        config: the configuration whose speed was measured, from `choose_base`.
        given: the names of the settings that the user gave. None: the user named a preset or a file of settings, and
            `config` stays as it is.
        pairs: the number of pairs of views that the budget allows at this speed.
        gpu: whether the run is on a GPU.

    Raises:
        ConfigError: if a setting that the user gave does not fit the recipe.

    Examples:
        >>> config = choose_base(load_preset("cifar10-resnet20"), ["temperature"], gpu=False)
        >>> choose_recipe(config, ["temperature"], pairs=1e6, gpu=False).config.model.encoder
        'resnet8x4'
    """
    if given is None:
        return Choice(config, f"you gave --preset {config.preset}, or --config")
    if config.preset != PRESET_OF_PHOTOGRAPHS:
        return Choice(config, f"no other settings were tried for the images of preset {config.preset}")
    if gpu:
        return Choice(config, f"these are the settings of {ON_GPU}, and no others were tried on a GPU")
    recipe = [each for each in RECIPES if each.least_pairs <= pairs][-1]
    chosen = replace(config, **_drop_given(recipe.settings, given))
    validate(chosen)
    return Choice(chosen, recipe.why)


def _drop_given(values: dict[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Return `values` without the settings that the user gave, and without those that TOGETHER keeps with them."""
    kept = {*given, *(other for name in given for other in TOGETHER.get(name, ()))}
    return {name: value for name, value in values.items() if name not in kept}


def choose_warmup(config: Config, given: Collection[str] | None, steps: int, per_epoch: int) -> Config:
    """Return the configuration with a warm-up of the share WARMUP of the training.

    If the user gave a warm-up, a preset or a file of settings, the configuration does not change.

    Args:
        config: the configuration.
        given: the names of the settings that the user gave. None: the user named a preset or a file of settings.
        steps: the planned number of steps.
        per_epoch: steps of an epoch.
    """
    if given is None or "warmup_epochs" in given:
        return config
    return replace(config, warmup_epochs=round(WARMUP * steps / per_epoch, 6))


def get_setting(config: Config, name: str) -> Any:
    """Return the value of a setting by its name."""
    return get_value(config, list_fields()[name])
