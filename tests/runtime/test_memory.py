"""Tests how the program finds out how much memory is free: from Linux, or from the limit of a container."""

from __future__ import annotations

from pathlib import Path

from lowlevel_simclr.runtime.memory import find_available_memory


def test_the_smaller_of_machine_and_container_counts(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  9 kB\nMemAvailable:  3 kB\nSwapFree: 1 kB\n")
    assert find_available_memory(meminfo, tmp_path) == 4096
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert find_available_memory(meminfo, tmp_path) == 4096
    (tmp_path / "memory.max").write_text("3000\n")
    assert find_available_memory(meminfo, tmp_path) == 2000


def test_without_either_it_is_the_memory_of_the_machine(tmp_path: Path) -> None:
    whole = find_available_memory(tmp_path / "meminfo", tmp_path)
    assert whole > 2**20
    (tmp_path / "memory.max").write_text("5\n")
    (tmp_path / "memory.current").write_text("9\n")
    assert find_available_memory(tmp_path / "meminfo", tmp_path) == 0
