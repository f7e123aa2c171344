"""Tests writing a table into a page, between two markers. A page without these markers must cause an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.report import markers


def test_a_page_without_the_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="does not have the markers <!-- bench:steps -->"):
        markers.write_between(page, "bench:steps", "| table |")
    assert page.read_text() == "no markers"
