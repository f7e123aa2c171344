"""Finds how much memory a process can still use."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path


def find_available_memory(meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how much memory a program on this machine can still use, in bytes.

    Args:
        meminfo: Linux's list of memory. If it does not exist, the whole memory of the machine counts as available.
        group: the folder in which Linux states the memory limit of a container. It need not exist.

    Examples:
        >>> find_available_memory() > 0
        True
    """
    available = _measure_whole_memory()
    if meminfo.exists():
        lines = (line.split() for line in meminfo.read_text(encoding="utf-8").splitlines())
        kibibytes = {words[0]: int(words[1]) for words in lines if len(words) > 1}
        available = 1024 * (kibibytes.get("MemAvailable:", 0) + kibibytes.get("SwapFree:", 0)) or available
    limit, used = (_read_number(group / name) for name in ("memory.max", "memory.current"))
    return available if limit is None or used is None else min(available, max(0, limit - used))


def _measure_whole_memory() -> int:
    """Return the memory of the machine, in bytes."""
    if sys.platform == "win32":
        kibibytes = ctypes.c_ulonglong()
        ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kibibytes))
        return 1024 * kibibytes.value or 2**40  # the value is 0 if the firmware does not state the memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _read_number(path: Path) -> int | None:
    """Return the number in a file, or None if there is no such file or it holds a word, such as "max"."""
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
