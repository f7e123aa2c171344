"""Reads the budget of a run: a time limit such as 10m."""

from __future__ import annotations

import re

from lowlevel_simclr.config.settings import ConfigError

SECONDS = {"s": 1, "m": 60, "h": 3600}  # seconds of each unit


def parse_budget(text: str) -> float:
    """Return a budget in seconds.

    Args:
        text: a number and a unit, s, m or h.

    Raises:
        ConfigError: if the text is not a number with its unit, or if the time is 0.

    Examples:
        >>> parse_budget("1.5m")
        90.0
    """
    found = re.fullmatch(r"(\d{1,6}|\d{0,6}\.\d{1,6})([smh])", text)
    seconds = float(found[1]) * SECONDS[found[2]] if found else 0.0
    if not seconds:
        raise ConfigError(f"--budget is {text}. Give a time above 0 with its unit, such as 90s, 10m or 1.5h.")
    return seconds
