"""Tests that the settings of a training can be written as text and read back, and which of them may change later.

The settings that must not change when a training resumes are its identity.
"""

from __future__ import annotations

import json

import pytest

from lowlevel_simclr.config.identity import from_dict, hash_config, list_differences, replace, to_dict
from lowlevel_simclr.config.presets import load_preset
from lowlevel_simclr.config.settings import Config, ConfigError
from tests.support.every_setting import OTHER, SETTINGS

NOT_IDENTITY = {
    "data_dir",
    "memory_limit",
    "cache",
    "data_on",
    "steps_per_call",
    "checkpoint_every",
    "keep_checkpoints",
}


NOT_IDENTITY |= {"cache", "knn_every", "worker_timeout", "evaluation_size"}
NOT_IDENTITY |= {"labels", "split"}  # paths of files, which may change; their content is compared with data.json


# From a configuration to text, and back


@pytest.mark.parametrize("config", [Config(), load_preset("shapes"), replace(Config(), preset="other", **OTHER)])
def test_json_gives_back_the_same_config(config):
    again = from_dict(json.loads(json.dumps(to_dict(config))))
    assert again == config and repr(again) == repr(config)  # repr distinguishes 1 from 1.0, and == does not


def test_an_absent_setting_takes_its_default():
    values = to_dict(replace(Config(), temperature=0.5))
    del values["train"]["deterministic"], values["model"]
    assert from_dict(values) == replace(Config(), temperature=0.5)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"loss": {"temprature": 0.1}}, "There is no setting 'loss.temprature'. Did you mean temperature\\?"),
        ({"data": {"temperature": 0.1}}, "There is no setting 'data.temperature'"),
        ({"optimiser": {}}, "There is no section of settings named 'optimiser'. Did you mean optimizer\\?"),
        ({"loss": 0.1}, "There is no section of settings named 'loss'"),
        ({"train": {"batch_size": "256"}}, "--batch-size is 256. It must be a whole number"),
        ({"train": {"batch_size": 256.0}}, "--batch-size is 256.0. It must be a whole number"),
        ({"train": {"batch_size": True}}, "--batch-size is True. It must be a whole number"),
        ({"train": {"deterministic": 1}}, "--deterministic is 1. It must be a boolean"),
        ({"loss": {"temperature": True}}, "--temperature is True. It must be a number"),
        ({"loss": {"temperature": None}}, "--temperature is none. It must be a number"),
        ({"views": {"hue": [0.1]}}, "--hue is 0.1. It must be two numbers"),
        ({"views": {"hue": 0.1}}, "--hue is 0.1. It must be two numbers"),
        ({"model": {"projection_widths": []}}, "It must be one or more whole numbers"),
    ],
)
def test_a_stored_config_of_another_kind_is_refused_by_name(values, sentence):
    with pytest.raises(ConfigError, match=sentence):
        from_dict(values)


def test_replace_refuses_a_name_that_is_no_setting():
    with pytest.raises(ConfigError, match="There is no setting 'temprature'. Did you mean temperature"):
        replace(Config(), temprature=0.1)


# The identity


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_keeps_a_run_from_being_resumed_exactly_when_it_can_change_the_weights(name):
    before, after = load_preset("shapes"), replace(load_preset("shapes"), **{name: OTHER[name]})
    same = name in NOT_IDENTITY
    assert bool(list_differences(before, after)) != same
    assert (hash_config(before) == hash_config(after)) == same


def test_a_difference_is_told_from_the_run_to_what_is_asked_for():
    after = replace(load_preset("shapes"), temperature=0.5, crop_area=(0.08, 1.0), steps=9, checkpoint_every=1)
    assert list_differences(load_preset("shapes"), after) == [
        "steps: none -> 9",
        "temperature: 0.1 -> 0.5",
        "crop_area: 0.3 1.0 -> 0.08 1.0",
    ]


def test_the_label_of_a_preset_is_no_difference():
    assert list_differences(load_preset("shapes"), replace(load_preset("shapes"), preset="mine")) == []


def test_an_older_run_keeps_its_hash() -> None:
    """Test that the preset `shapes` still has the hash of an earlier version, so that older runs can resume.

    In the earlier version, native ops were the default, and the flag --splits did not exist.
    """
    assert hash_config(replace(load_preset("shapes"), ops="native")) == "912855193eaf6663"
    assert hash_config(replace(load_preset("shapes"), ops="native", splits="none")) != "912855193eaf6663"
