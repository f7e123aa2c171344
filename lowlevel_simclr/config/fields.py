"""Lists the settings with their types and rules. Flags, checks, comparisons and config.json all use this list."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import typing
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

from lowlevel_simclr.config.settings import SECTIONS, Config, ConfigError


class Field(NamedTuple):
    """One setting: its section, name, type and rule."""

    section: str
    name: str
    item: type  # bool, int, float or str
    length: int  # 1 for one value, 2 for a range, 0 for one or more values
    optional: bool  # whether None is allowed
    rule: Mapping[str, Any]  # help text, choices and bounds, see `settings._define_option`

    @property
    def flag(self) -> str:
        """The flag as a user types it, such as --batch-size."""
        return "--" + self.name.replace("_", "-")


def _describe_field(section: str, field: dataclasses.Field[Any], hint: Any) -> Field:
    """Return the `Field` that describes a dataclass field. `hint` is the type hint of that dataclass field."""
    optional = type(None) in typing.get_args(hint)
    if optional:
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is not tuple:
        return Field(section, field.name, hint, 1, optional, field.metadata)
    item, last = typing.get_args(hint)
    return Field(section, field.name, item, 0 if last is Ellipsis else 2, optional, field.metadata)


@functools.cache
def list_fields() -> dict[str, Field]:
    """Return every setting of every section by its name, in the order of the sections."""
    every = [
        _describe_field(section, field, typing.get_type_hints(kind)[field.name])
        for section, kind in SECTIONS.items()
        for field in dataclasses.fields(kind)
    ]
    return {field.name: field for field in every}


def get_value(config: Config, field: Field) -> Any:
    """Return the value of a setting."""
    return getattr(getattr(config, field.section), field.name)


def format_value(value: Any) -> str:
    """Format a value as a user would type it.

    Examples:
        >>> format_value((0.2, 1.8))
        '0.2 1.8'
    """
    if isinstance(value, (tuple, list)):
        return " ".join(format_value(part) for part in value)
    return "none" if value is None else str(value)


def suggest_nearest(word: str, known: Iterable[str]) -> str:
    """Return the end of a message that suggests the nearest known word. It begins with a space.

    The text is empty if no known word is near.

    Examples:
        >>> suggest_nearest("--sead", ["--seed", "--steps"])
        ' Did you mean --seed?'
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]}?" if near else ""


def describe_unknown(what: str, word: str, known: Iterable[str]) -> str:
    """Return the message for a name that does not exist."""
    return f"There is no {what} '{word}'.{suggest_nearest(word, known)} Known names: {', '.join(known)}."


def describe_wanted(field: Field) -> str:
    """Describe in words what a field accepts."""
    words = {int: "whole number", float: "number", bool: "boolean", str: "string"}
    phrases = {"above": "above", "at_least": "at least", "below": "below", "at_most": "at most"}
    bounds = " and ".join(f"{phrases[key]} {field.rule[key]}" for key in phrases if key in field.rule)
    word = words[field.item]
    form = {1: f"a {word}", 2: f"two {word}s, low and then high", 0: f"one or more {word}s"}
    joint = ", each " if field.length != 1 else " of " if bounds.startswith("at ") else " "
    return form[field.length] + (joint + bounds if bounds else "")


def refuse_value(field: Field, value: Any) -> NoReturn:
    """Raise a ConfigError that says what the field accepts."""
    raise ConfigError(f"{field.flag} is {format_value(value)}. It must be {describe_wanted(field)}.")


def convert_item(field: Field, value: Any) -> Any:
    """Convert one value to the field's type. A whole number is accepted for a float.

    Raises:
        ConfigError: if the value cannot be converted.
    """
    if field.item is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if type(value) is not field.item:
        refuse_value(field, value)
    return value


def convert_value(field: Field, value: Any) -> Any:
    """Convert the whole value of a field: None, one value, or a tuple of values. A list is accepted for a tuple.

    Raises:
        ConfigError: if a value cannot be converted, or the tuple has the wrong length.
    """
    if value is None and field.optional:
        return None
    if field.length == 1:
        return convert_item(field, value)
    if not isinstance(value, (tuple, list)) or not value or field.length not in (0, len(value)):
        refuse_value(field, value)
    return tuple(convert_item(field, part) for part in value)


def _is_inside(value: float, rule: Mapping[str, Any]) -> bool:
    """Return whether a number is finite and within its bounds."""
    return (
        value > rule.get("above", -math.inf)
        and value >= rule.get("at_least", -math.inf)
        and value < rule.get("below", math.inf)
        and value <= rule.get("at_most", math.inf)
    )


def check_field(field: Field, value: Any) -> None:
    """Check the type, choices, bounds and order of one field.

    Raises:
        ConfigError: if the value breaks one of these rules.
    """
    value = convert_value(field, value)
    choices = field.rule.get("choices")
    if choices and value not in choices:
        raise ConfigError(describe_unknown(field.flag, value, choices))
    if value is None or field.item in (bool, str):
        return
    parts = value if isinstance(value, tuple) else (value,)
    if not all(_is_inside(part, field.rule) for part in parts) or (field.length == 2 and parts[0] > parts[1]):
        refuse_value(field, value)
