"""Tests reading a time limit for training (--budget) from a text such as "10m"."""

from __future__ import annotations

import pytest

from lowlevel_simclr.config.budget import parse_budget
from lowlevel_simclr.config.settings import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"), [("8s", 8), ("10m", 600), ("1.5h", 5400), ("0.5m", 30), (".5m", 30), ("90s", 90)]
)
def test_a_budget_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["10", "10min", "m", "", "-5m", "0s", "1e3s", "10 m", "5d", "nan", "1.m"])
def test_other_texts_are_refused_with_what_to_give(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--budget is .*Give a time above 0 with its unit, such as 90s, 10m or 1.5h"):
        parse_budget(text)
