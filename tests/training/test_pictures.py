"""Tests that training continues if one of its pictures cannot be drawn or written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lowlevel_simclr.training.pictures import draw_or_name


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
        (ValueError("Parse failure in $0_$100"), "ValueError: Parse failure in $0_$100"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_picture_that_fails_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, reason: str
) -> None:
    def fail(path: Path) -> None:
        raise error

    draw_or_name(tmp_path / "embedding.png", fail)
    said = capsys.readouterr().err
    assert said.startswith("warning: ") and "embedding.png" in said and reason in said


def test_a_picture_that_works_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_or_name(tmp_path / "views.png", lambda path: path.write_bytes(b"PNG"))
    assert (tmp_path / "views.png").read_bytes() == b"PNG" and capsys.readouterr().err == ""
