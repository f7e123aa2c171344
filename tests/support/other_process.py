"""Runs Python code in a separate process, for tests of settings that a process reads only once, when it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def output_of(program: str, **environment: str) -> str:
    """Run a program, and return what it writes to standard output.

    The program runs in the root folder of this repository, so that it can import the tests.

    Args:
        program: Python code.
        environment: variables to set or replace.

    Raises:
        AssertionError: if the program fails. The message has the end of the program's error output.
    """
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    variables = {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()
