"""A configuration as text, and which of its settings make a run this run.

A setting is part of the identity when it can change the trained weights, if only in the last bit. A run is resumed only
under the same identity.
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
    """The config with some settings changed, each by its own name: `replace(config, temperature=0.5)`.

    Raises:
        ConfigError: for a name that is no setting, or a value of the wrong type.
    """
    label = values.pop("preset", config.preset)
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for name, value in values.items():
        if name not in list_fields():
            raise ConfigError(f"there is no setting '{name}'{suggest_nearest(name, list_fields())}")
        field = list_fields()[name]
        sections[field.section][name] = convert_value(field, value)
    parts = {name: dataclasses.replace(getattr(config, name), **changed) for name, changed in sections.items()}
    return dataclasses.replace(config, preset=label, **parts)


def to_dict(config: Config) -> dict[str, Any]:
    """The config as JSON holds it: one object a section, tuples as lists. `from_dict` gives it back."""
    text: dict[str, Any] = {"preset": config.preset, **{section: {} for section in SECTIONS}}
    for field in list_fields().values():
        value = convert_value(field, get_value(config, field))
        text[field.section][field.name] = list(value) if isinstance(value, tuple) else value
    return text


def from_dict(values: Mapping[str, Any]) -> Config:
    """The config of `to_dict`; an absent setting takes its field's default, so that older runs still open.

    Raises:
        ConfigError: for a section or setting that this version does not know, by name, and for a wrong type.
    """
    for section in values:
        if section != "preset" and not (section in SECTIONS and isinstance(values[section], Mapping)):
            raise ConfigError(f"there is no section '{section}' of settings{suggest_nearest(section, SECTIONS)}")
    for section in SECTIONS:
        for name in values.get(section, ()):
            if name not in list_fields() or list_fields()[name].section != section:
                raise ConfigError(f"there is no setting '{section}.{name}'{suggest_nearest(name, list_fields())}")
    settings = {name: value for section in SECTIONS for name, value in values.get(section, {}).items()}
    return replace(Config(), preset=str(values.get("preset", Config.preset)), **settings)


def get_identity(config: Config) -> dict[str, Any]:
    """The settings that make a run this run, by name."""
    ours = (field for field in list_fields().values() if field.rule.get("identity", True))
    return {field.name: convert_value(field, get_value(config, field)) for field in ours}


def list_differences(before: Config, after: Config) -> list[str]:
    """What keeps `after` from resuming a run of `before`: one line a setting, "temperature: 0.2 -> 0.5"."""
    old, new = get_identity(before), get_identity(after)
    return [f"{name}: {format_value(old[name])} -> {format_value(new[name])}" for name in old if old[name] != new[name]]


def hash_config(config: Config) -> str:
    """Sixteen hexadecimal digits that two configs share exactly when `difference` finds none (SHA-256)."""
    return hashlib.sha256(json.dumps(get_identity(config), sort_keys=True).encode()).hexdigest()[:16]
