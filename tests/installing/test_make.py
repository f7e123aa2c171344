"""Tests the error messages of `make` if the Python interpreter is missing or cannot be used."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOO_OLD = '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.18\n[ -z "$2" ] || exit 1\n'
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.mark.parametrize(
    ("program", "wanted"),
    [
        (None, "There is no {python}. Name a Python, as in  make PYTHON=python3.12 "),
        ("#!/bin/sh\necho broken >&2\nexit 127\n", "{python} does not start. Repair it, or name another, as in  make"),
        (TOO_OLD, "{python} is Python 3.9.18, and TensorFlow needs 3.10 to 3.13. Name one, as in  make PYTHON="),
    ],
    ids=["missing", "broken", "old"],
)
def test_a_wrong_python_is_named_with_the_reason(program: str | None, wanted: str, tmp_path: Path) -> None:
    python, environment = tmp_path / "python", tmp_path / "venv"
    if program is not None:
        python.write_text(program, encoding="utf-8")
        python.chmod(0o755)
    command = ["make", f"PYTHON={python}", f"VENV={environment}", f"{environment}/complete"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and wanted.format(python=python) in done.stdout
    assert ("broken" in done.stderr) == (program is not None and "broken" in program)
    assert not environment.exists()
