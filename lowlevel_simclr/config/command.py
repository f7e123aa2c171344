"""Writes the command (or the Python call) that trains a run again, from the settings of the run.

The command starts from a preset, which is a named set of settings.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from lowlevel_simclr.config.choices import IN_MEMORY
from lowlevel_simclr.config.fields import Field, convert_value, get_value, list_fields
from lowlevel_simclr.config.identity import from_dict
from lowlevel_simclr.config.presets import PRESETS, load_preset
from lowlevel_simclr.config.settings import Config

USUAL = "shapes"  # the preset to start from if the run has none


def write_command(values: Mapping[str, Any], out: str) -> str:
    """Return the command that trains with the settings of a run.

    If the run was trained on images in memory, return a Python call instead.

    Args:
        values: the content of config.json.
        out: the run folder that the command writes.

    Raises:
        ConfigError: if a setting is unknown, or a value has the wrong type.

    Example:
        >>> write_command({"preset": "shapes", "data": {"dataset": "shapes"}, "train": {"seed": 3}}, "runs/a")[:57]
        'python -m lowlevel_simclr.train --preset shapes --crop-are'
    """
    config = from_dict(values)
    preset = _choose_preset(config)
    changed = list_changes(config, load_preset(preset))
    if config.data.dataset.startswith(IN_MEMORY):
        given = {"preset": preset, **{name: value for name, value in changed.items() if name != "dataset"}}
        return f"lowlevel_simclr.train(images, {out!r}, {', '.join(f'{name}={given[name]!r}' for name in given)})"
    words = ["python", "-m", "lowlevel_simclr.train", "--preset", preset]
    for name, value in changed.items():
        words += _write_flag(list_fields()[name], value)
    return shlex.join([*words, "--out", out])


def _choose_preset(config: Config) -> str:
    """Return the preset from which the command starts: the preset of the run, or USUAL.

    The function returns USUAL in two cases: if the run has no preset, or if a setting is empty (None) in the run but
    has a value in the preset. No flag can make such a setting empty.
    """
    if config.preset not in PRESETS:
        return USUAL
    base = load_preset(config.preset)
    optional = [field for field in list_fields().values() if field.optional]
    removed = any(get_value(base, field) is not None and get_value(config, field) is None for field in optional)
    return USUAL if removed else config.preset


def list_changes(config: Config, base: Config) -> dict[str, Any]:
    """Return the settings by which a configuration differs from another one. Settings without a value are left out."""
    pairs = {
        name: (convert_value(field, get_value(config, field)), convert_value(field, get_value(base, field)))
        for name, field in list_fields().items()
    }
    return {name: new for name, (new, old) in pairs.items() if new != old and new is not None}


def _write_flag(field: Field, value: Any) -> list[str]:
    """Return a setting as the words of a command line."""
    if field.item is bool:
        return [field.flag if value else field.flag.replace("--", "--no-", 1)]
    parts = value if isinstance(value, tuple) else (value,)
    return [field.flag, *map(_write_value, parts)]


def _write_value(value: Any) -> str:
    """Return a value as one word of a command line.

    Negative numbers are written without an exponent, because argparse mistakes -1e-06 for a flag.
    """
    if isinstance(value, float) and value < 0:
        return format(Decimal(repr(value)), "f")
    return str(value)
