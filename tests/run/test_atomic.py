"""Tests that a damaged JSON file in the folder of a training run gives an error message of one sentence."""

from __future__ import annotations

import os

import pytest

from lowlevel_simclr.run.atomic import RunError, read_json


def test_a_json_file_that_cannot_be_used_is_told_in_a_sentence(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("[" * 100_000)
    with pytest.raises(RunError, match="config.json is not valid JSON"):
        read_json(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(RunError, match="config.json cannot be read: it is a FIFO, not a regular file. Repair it"):
        read_json(path)
    path.unlink()
    with open(path, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(
        RunError, match="config.json cannot be read: it has 1099511627776 bytes, more than LARGEST_JSON"
    ):
        read_json(path)
