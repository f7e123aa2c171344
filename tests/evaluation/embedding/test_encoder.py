"""Tests how the program `embed` finds out from data.json on what size of images an encoder was trained.

`tests/programs/test_embed.py` tests the encoder itself.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lowlevel_simclr.evaluation.embedding.encoder import read_stored_shape
from lowlevel_simclr.evaluation.embedding.given import EmbedError
from lowlevel_simclr.run.atomic import RunError


@pytest.mark.parametrize(
    ("record", "sentence"), [({}, "has no data.json with the shape"), ({"shape": [9, 9, 4]}, "with 4 channels")]
)
def test_a_run_tells_the_shape_of_its_images_or_is_refused(
    tmp_path: Path, record: dict[str, list[int]], sentence: str
) -> None:
    (tmp_path / "data.json").write_text(json.dumps({"shape": [12, 10, 3]}))
    assert read_stored_shape(tmp_path)[:3] == (12, 10, 3)
    (tmp_path / "data.json").write_text(json.dumps(record))
    with pytest.raises((RunError, EmbedError), match=sentence):
        read_stored_shape(tmp_path)
