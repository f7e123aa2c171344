"""Converts configurations to and from JSON values, and lists the settings that identify a run.

A setting is part of the identity if it can change the trained weights, even if only in the last bit. A run can only be
resumed with settings of the same identity.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lowlevel_simclr.config.fields import convert_value, format_value, get_value, list_fields, suggest_nearest
from lowlevel_simclr.config.settings import SECTIONS, Config, ConfigError


def replace(config: Config, **values: Any) -> Config:
    """Return the config with some settings changed. Each argument has the name of a setting.

    Raises:
        ConfigError: if a name is not a setting, or a value has the wrong type.

    Examples:
        >>> replace(Config(), temperature=0.5).loss.temperature
        0.5
    """
    label = values.pop("preset", config.preset)
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for name, value in values.items():
        if name not in list_fields():
            raise ConfigError(f"There is no setting '{name}'.{suggest_nearest(name, list_fields())}")
        field = list_fields()[name]
        sections[field.section][name] = convert_value(field, value)
    parts = {name: dataclasses.replace(getattr(config, name), **changed) for name, changed in sections.items()}
    return dataclasses.replace(config, preset=label, **parts)


def to_dict(config: Config) -> dict[str, Any]:
    """Return the config as JSON values, with one object per section and lists for tuples.

    `from_dict` turns them back into the config.
    """
    text: dict[str, Any] = {"preset": config.preset, **{section: {} for section in SECTIONS}}
    for field in list_fields().values():
        value = convert_value(field, get_value(config, field))
        text[field.section][field.name] = list(value) if isinstance(value, tuple) else value
    return text


def from_dict(values: Mapping[str, Any]) -> Config:
    """Return the config from the output of `to_dict`.

    A missing setting takes its default, so that runs of older versions can still be read.

    Raises:
        ConfigError: if a section or setting is unknown, or a value has the wrong type. The message names the setting.
    """
    for section in values:
        if section != "preset" and not (section in SECTIONS and isinstance(values[section], Mapping)):
            raise ConfigError(f"There is no section of settings named '{section}'.{suggest_nearest(section, SECTIONS)}")
    for section in SECTIONS:
        for name in values.get(section, ()):
            if name not in list_fields() or list_fields()[name].section != section:
                raise ConfigError(f"There is no setting '{section}.{name}'.{suggest_nearest(name, list_fields())}")
    settings = {name: value for section in SECTIONS for name, value in values.get(section, {}).items()}
    return replace(Config(), preset=str(values.get("preset", Config.preset)), **settings)


def get_identity(config: Config) -> dict[str, Any]:
    """Return the settings that identify a run, by name."""
    ours = (field for field in list_fields().values() if field.rule.get("identity", True))
    return {field.name: convert_value(field, get_value(config, field)) for field in ours}


def list_differences(before: Config, after: Config) -> list[str]:
    """Return what prevents a run with the settings `before` from being resumed with `after`, one line per setting.

    Examples:
        >>> list_differences(Config(), replace(Config(), temperature=0.5))
        ['temperature: 0.2 -> 0.5']
    """
    old, new = get_identity(before), get_identity(after)
    return [f"{name}: {format_value(old[name])} -> {format_value(new[name])}" for name in old if old[name] != new[name]]


def hash_config(config: Config) -> str:
    """Return sixteen hexadecimal digits of a SHA-256 over the identity.

    Two configs have the same digits exactly if `list_differences` finds no difference. A setting that was added later
    (`added` in its rule) counts only if it does not have its default. So older runs keep their digits.
    """
    default, added = Config(), {name for name, field in list_fields().items() if field.rule.get("added")}
    identity = {
        name: value
        for name, value in get_identity(config).items()
        if name not in added or value != get_value(default, list_fields()[name])
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
