"""Tests that docs/security.md states the same limits, for example of file sizes, as the code has."""

from __future__ import annotations

import re
from pathlib import Path

from lowlevel_simclr.config import starting_point
from lowlevel_simclr.data import array_pickle, dataset, download, image_file, parquet
from lowlevel_simclr.model import pretrained, safetensors
from lowlevel_simclr.run import atomic
from lowlevel_simclr.runtime import files

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
MODULES = (
    starting_point,
    array_pickle,
    dataset,
    download,
    image_file,
    parquet,
    pretrained,
    safetensors,
    atomic,
    files,
)


def test_every_limit_of_the_page_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+)", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(rows) > 5
    for name, value in rows:
        found = {getattr(module, name) for module in MODULES if hasattr(module, name)}
        assert found == {int(value.replace(",", ""))}, name
