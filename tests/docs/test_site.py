"""Tests that Sphinx builds the documentation's website without a warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import pages


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    for needed in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(needed, reason=f"{needed} is missing (make docs installs it)")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(tmp_path)]
    done = subprocess.run(command, cwd=pages.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = {path.stem for path in tmp_path.glob("*.html")}
    assert {page.stem for page in pages.PAGES if page.parent.name == "docs"} <= written
    assert "An --out below a file" in (tmp_path / "errors.html").read_text(encoding="utf-8")
    api = (tmp_path / "api.html").read_text(encoding="utf-8")
    assert "Return type" not in api  # shown if Sphinx takes words before a colon for a type
    assert "<math" in (tmp_path / "loss.html").read_text(encoding="utf-8")
