"""What the system tells of the processor. Asked before TensorFlow is imported, so it imports nothing of it."""

from __future__ import annotations

from pathlib import Path


def read_cpuinfo_words() -> set[str]:
    """Those of /proc/cpuinfo, vendor and flags among them; none where the system has no such file."""
    cpuinfo = Path("/proc/cpuinfo")
    return set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
