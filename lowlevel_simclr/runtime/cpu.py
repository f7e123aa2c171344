"""Reads the operating system's description of the processor.

The package calls this module before it imports TensorFlow, so the module itself does not import TensorFlow.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def read_cpuinfo_words() -> set[str]:
    """Return the words of /proc/cpuinfo, such as vendor and flags. Without that file, the set is empty."""
    cpuinfo = Path("/proc/cpuinfo")
    return set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()


def count_usable_cores() -> int | None:
    """Return the number of cores that this process may use. On Linux, these may be fewer than the machine has."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count()
