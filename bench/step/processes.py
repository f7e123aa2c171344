"""Runs a bench in another process, because each process has its own speed and its own peak memory."""

from __future__ import annotations

import subprocess
import sys


def run_module(module: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE FLAGS` to its end, and keep what it prints."""
    return subprocess.run([sys.executable, "-m", module, *flags], capture_output=True, text=True)


def read_last_line(module: str, *flags: str) -> str:
    """Return the last line that `python -m MODULE FLAGS` prints.

    Raises:
        SystemExit: the process failed.
    """
    done = run_module(module, *flags)
    if done.returncode != 0:
        raise SystemExit(f"the process of {' '.join([module, *flags])} failed: {done.stderr[-2000:]}")
    return done.stdout.splitlines()[-1]
