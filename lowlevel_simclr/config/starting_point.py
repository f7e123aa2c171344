"""Finds the settings from which a run starts: a preset (a named set of settings), or a file such as a config.json."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from lowlevel_simclr.config.choices import SMALLEST_BATCH
from lowlevel_simclr.config.fields import list_fields
from lowlevel_simclr.config.identity import from_dict, replace
from lowlevel_simclr.config.presets import (
    LARGEST_FOR_PICTURES,
    PRESET_OF_DATASET,
    PRESET_OF_PHOTOGRAPHS,
    PRESETS,
    PRESETS_OF_PICTURES,
    load_preset,
)
from lowlevel_simclr.config.settings import Config, ConfigError

LARGEST_CONFIG = 2**20  # bytes; a usual config.json has two thousand


def choose_starting_point(preset: str | None, dataset: str | None, file: Path | None) -> Config:
    """Return the configuration from which a run starts. The caller then applies the settings that the user gave.

    Args:
        preset: the name of a preset, or None.
        dataset: the name of a data set, or None for shapes. If neither preset nor file is given, the preset of this
            data set is returned.
        file: a file that holds a configuration, or None.

    Raises:
        ConfigError: if there is no such preset or file, or if both are given.
    """
    if file is None:
        return load_preset(preset or PRESET_OF_DATASET.get(dataset or "shapes", PRESET_OF_PHOTOGRAPHS))
    if preset is not None:
        raise ConfigError(f"--preset is {preset} and --config is {file}. Give only one of them.")
    return read_config_file(file)


def adapt_to_pictures(count: int, side: int, preset: str | None = None, gpu: bool = True) -> Config:
    """Return the settings for a folder of images.

    Args:
        count: number of images to train on.
        side: the median of the images' shorter sides, in pixels.
        preset: the preset of the run to resume, or None.
        gpu: whether the machine has a GPU. Without a GPU, the largest preset would take hours for a few hundred images,
            so the next smaller preset is used.

    Returns:
        The preset for that side. Its batch is the largest of 2, 4, 8, ... that the preset and the number of images
        allow.

    Examples:
        >>> chosen = adapt_to_pictures(100, 375)
        >>> chosen.preset, chosen.model.image_size, chosen.train.batch_size
        ('pictures-128', 128, 64)
    """
    choices = [(name, least) for name, least in PRESETS_OF_PICTURES.items() if gpu or name != LARGEST_FOR_PICTURES]
    fitting = next(name for name, least in choices if side >= least)
    base = load_preset(preset if preset in PRESETS_OF_PICTURES else fitting)
    most = max(SMALLEST_BATCH, min(count, base.train.batch_size))
    return replace(base, batch_size=2 ** (most.bit_length() - 1))


def read_config_file(file: Path) -> Config:
    """Return the configuration in a JSON file.

    A setting that the file leaves out has the value of the file's preset.

    Raises:
        ConfigError: if the file cannot be read, is not JSON, or holds unknown settings.
    """
    values = _read_object(file)
    try:
        label = from_dict(values).preset  # raises an error for unknown names and wrong types
        start = load_preset(label) if label in PRESETS else Config()
        given = {
            name: value for section in values.values() if isinstance(section, dict) for name, value in section.items()
        }
        return replace(start, preset=label, **given)
    except ConfigError as error:
        raise ConfigError(f"--config {file}: {error}") from None


def to_settings(config: Config) -> dict[str, Any]:
    """Return a dict from the name of each setting to its value, as `lowlevel_simclr.train` takes them."""
    values = {name: getattr(getattr(config, field.section), name) for name, field in list_fields().items()}
    return {"preset": config.preset, **values} if config.preset in PRESETS else values


def _read_object(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or raise a ConfigError."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_CONFIG:  # reading a FIFO would never end
            raise ConfigError(
                f"--config {file} is not a regular file of at most {LARGEST_CONFIG} bytes (LARGEST_CONFIG). Give "
                "the config.json of a run."
            )
        values = json.loads(file.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"--config {file} cannot be read ({error.strerror}). Give the config.json of a run."
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--config {file} is not JSON ({error}). Give the config.json of a run.") from None
    if not isinstance(values, dict):
        raise ConfigError(f"--config {file} is not a JSON object. Give the config.json of a run.")
    return values
