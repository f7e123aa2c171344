"""Tests that values of settings are converted to the right type and checked against the allowed values.

Types and allowed values are read from the dataclasses that define the settings.
"""

from __future__ import annotations

import dataclasses
import json

import pytest

from lowlevel_simclr.config import fields
from lowlevel_simclr.config import settings as configuration
from lowlevel_simclr.config.identity import hash_config, replace, to_dict
from lowlevel_simclr.config.settings import Config, ConfigError
from tests.support.every_setting import SETTINGS


def test_whole_numbers_become_floats_where_floats_live():
    loose = dataclasses.replace(Config(), loss=configuration.LossConfig(temperature=1))
    exact = replace(Config(), temperature=1.0)
    assert json.dumps(to_dict(loose)) == json.dumps(to_dict(exact))
    assert hash_config(loose) == hash_config(exact)


def test_every_setting_is_one_field_of_its_section():
    every = fields.list_fields()
    assert {name: field.section for name, field in every.items()} == SETTINGS
    assert all(field.name == name and field.rule["help"] for name, field in every.items())
    hue, widths, steps = (every[name] for name in ("hue", "projection_widths", "steps"))
    assert (hue.item, hue.length, hue.optional) == (float, 2, False)
    assert (widths.item, widths.length, steps.item, steps.optional) == (int, 0, int, True)
    assert every["learning_rate_scaling"].flag == "--learning-rate-scaling"


@pytest.mark.parametrize(
    ("name", "given", "converted"),
    [
        ("temperature", 1, 1.0),
        ("hue", [0, 0.5], (0.0, 0.5)),
        ("projection_widths", [8], (8,)),
        ("steps", None, None),
        ("clip", False, False),
    ],
)
def test_a_value_comes_in_the_type_of_its_field(name, given, converted):
    value = fields.convert_value(fields.list_fields()[name], given)
    assert value == converted and repr(value) == repr(converted)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("temperature", 20.0, "a number of at least 0.001 and at most 10"),
        ("temperature", float("nan"), "a number of at least 0.001"),
        ("hue", (0.2, 0.1), "two numbers, low and then high, each at least -0.5 and at most 0.5"),
        ("projection_widths", (8, 0), "one or more whole numbers, each at least 1"),
        ("batch_size", True, "a whole number of at least 2"),
        ("clip", 1, "a boolean"),
    ],
)
def test_a_value_that_breaks_its_rule_is_refused_with_the_rule(name, value, wanted):
    with pytest.raises(ConfigError, match=f"{fields.list_fields()[name].flag} is .*. It must be {wanted}"):
        fields.check_field(fields.list_fields()[name], value)


def test_a_choice_is_suggested_where_one_is_near():
    field = fields.list_fields()["encoder"]
    with pytest.raises(
        ConfigError, match="There is no --encoder 'resnet-50'. Did you mean resnet50\\? Known names: .*"
    ):
        fields.check_field(field, "resnet-50")
    assert fields.suggest_nearest("qqqqq", ["resnet50"]) == ""
