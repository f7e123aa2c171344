"""The settings as data: one walk over them serves flags, text, checks and comparison."""

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


def _describe_field(section: str, field: dataclasses.Field[Any], hint: Any) -> Field:
    """One dataclass field, its type hint taken apart."""
    optional = type(None) in typing.get_args(hint)
    if optional:
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is not tuple:
        return Field(section, field.name, hint, 1, optional, field.metadata)
    item, last = typing.get_args(hint)
    return Field(section, field.name, item, 0 if last is Ellipsis else 2, optional, field.metadata)


@functools.cache
def list_fields() -> dict[str, Field]:
    """Every setting of every section by its name, in the order of the sections."""
    every = [
        _describe_field(section, field, typing.get_type_hints(kind)[field.name])
        for section, kind in SECTIONS.items()
        for field in dataclasses.fields(kind)
    ]
    return {field.name: field for field in every}


def get_value(config: Config, field: Field) -> Any:
    """The value of a setting."""
    return getattr(getattr(config, field.section), field.name)


def format_value(value: Any) -> str:
    """A value as a user would type it."""
    if isinstance(value, (tuple, list)):
        return " ".join(format_value(part) for part in value)
    return "none" if value is None else str(value)


def suggest_nearest(word: str, known: Iterable[str]) -> str:
    """': did you mean X?', or nothing where nothing is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f": did you mean {near[0]}?" if near else ""


def describe_unknown(what: str, word: str, known: Iterable[str]) -> str:
    """The sentence for a name that is none."""
    return f"there is no {what} '{word}'{suggest_nearest(word, known)} (known: {', '.join(known)})"


def describe_wanted(field: Field) -> str:
    """What a field takes, in words."""
    words = {int: "whole number", float: "number", bool: "truth value", str: "text"}
    phrases = {"above": "above", "at_least": "at least", "below": "below", "at_most": "at most"}
    bounds = " and ".join(f"{phrases[key]} {field.rule[key]}" for key in phrases if key in field.rule)
    word, each = words[field.item], ", each" if field.length != 1 else ","
    form = {1: f"a {word}", 2: f"two {word}s, the low end and then the high end", 0: f"one or more {word}s"}
    return form[field.length] + (f"{each} {bounds}" if bounds else "")


def refuse_value(field: Field, value: Any) -> NoReturn:
    """Raise a ConfigError that says what the field takes."""
    raise ConfigError(f"{field.flag} is {format_value(value)}: give {describe_wanted(field)}")


def convert_item(field: Field, value: Any) -> Any:
    """One value in the field's own type; a whole number may stand where a float lives.

    Raises:
        ConfigError: for a value of another type.
    """
    if field.item is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if type(value) is not field.item:
        refuse_value(field, value)
    return value


def convert_value(field: Field, value: Any) -> Any:
    """The field's whole value in its own type: None, one value, or a tuple of values (a list will do).

    Raises:
        ConfigError: for a value of another type or a tuple of another length.
    """
    if value is None and field.optional:
        return None
    if field.length == 1:
        return convert_item(field, value)
    if not isinstance(value, (tuple, list)) or not value or field.length not in (0, len(value)):
        refuse_value(field, value)
    return tuple(convert_item(field, part) for part in value)


def _is_inside(value: float, rule: Mapping[str, Any]) -> bool:
    """Whether a number is finite (the strict bounds see to that) and keeps its field's bounds."""
    return (
        value > rule.get("above", -math.inf)
        and value >= rule.get("at_least", -math.inf)
        and value < rule.get("below", math.inf)
        and value <= rule.get("at_most", math.inf)
    )


def check_field(field: Field, value: Any) -> None:
    """Type, choices, bounds and order of one field.

    Raises:
        ConfigError: for a value that breaks one of them.
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
