"""Tests that no two settings have one name, and that tests/support/every_setting.py has a test value for each."""

from __future__ import annotations

import dataclasses

from lowlevel_simclr.config import settings as configuration
from tests.support.every_setting import OTHER, SETTINGS


def test_every_setting_has_another_value_here_and_a_name_of_its_own():
    count = sum(len(dataclasses.fields(kind)) for kind in configuration.SECTIONS.values())
    assert set(OTHER) == set(SETTINGS) and len(SETTINGS) == count
    assert not set(SETTINGS) & {"preset", "out", "fresh", "preview", "jitter_strength", "help"}
