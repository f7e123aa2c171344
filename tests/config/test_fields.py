"""The type and the rule of every setting, read off the dataclasses."""

from __future__ import annotations

import dataclasses
import json

from lowlevel_simclr.config import settings as configuration
from lowlevel_simclr.config.identity import hash_config, replace, to_dict
from lowlevel_simclr.config.settings import Config


def test_whole_numbers_become_floats_where_floats_live():
    loose = dataclasses.replace(Config(), loss=configuration.LossConfig(temperature=1))
    exact = replace(Config(), temperature=1.0)
    assert json.dumps(to_dict(loose)) == json.dumps(to_dict(exact))
    assert hash_config(loose) == hash_config(exact)
