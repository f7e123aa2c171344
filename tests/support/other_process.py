"""A program in a process of its own, where what is read once at the start can be another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def output_of(program: str, **environment: str) -> str:
    """What a program writes to standard output, in this repository and with its tests to import.

    Args:
        program: Python.
        environment: variables that are set or replaced.

    Raises:
        AssertionError: it fails; the text is the end of its standard error.
    """
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    variables = {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()
