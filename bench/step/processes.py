"""Runs a bench in a separate process.

There are two reasons. The same program has a different speed in each process, so a bench measures several processes.
And peak memory can be measured only for a whole process.
"""

from __future__ import annotations

import subprocess
import sys


def run_module(module: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE FLAGS`, wait until it ends, and capture what it prints."""
    return subprocess.run([sys.executable, "-m", module, *flags], capture_output=True, text=True)


def read_last_line(module: str, *flags: str) -> str:
    """Run `python -m MODULE FLAGS`, and return the last line that it prints.

    Raises:
        SystemExit: if the process failed.
    """
    done = run_module(module, *flags)
    if done.returncode != 0:
        raise SystemExit(f"python -m {' '.join([module, *flags])} failed: {done.stderr[-2000:]}")
    return done.stdout.splitlines()[-1]
