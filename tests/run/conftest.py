"""A fixture for the tests in this folder: the open folder of a training run."""

from __future__ import annotations

import pytest

from lowlevel_simclr.run.folder import open_run
from tests.support.open_runs import CONFIG, compare_temperature


@pytest.fixture
def run(tmp_path):
    with open_run(tmp_path / "run", CONFIG, compare_temperature()) as run:
        yield run
