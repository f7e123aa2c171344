"""Tests the peak memory of a training that was interrupted and resumed: the largest peak of all its processes."""

from __future__ import annotations

from bench.learning import run_memory


def test_the_peak_is_the_largest_of_all_sessions() -> None:
    sessions = [{"peak_memory_bytes": {"host": 5, "gpu": None}}, {}, {"peak_memory_bytes": {"host": 3}}]
    assert run_memory.read_peak_memory({**sessions[0], "earlier": sessions[1:]}) == {"host": 5, "gpu": None}
    assert run_memory.read_peak_memory({"earlier": [sessions[2]]}) == {"host": 3, "gpu": None}
    assert run_memory.read_peak_memory({"earlier": []}) == {"host": None, "gpu": None}
