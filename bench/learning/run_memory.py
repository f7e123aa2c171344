"""Reads the peak memory of a run from its environment.json."""

from __future__ import annotations

from typing import Any


def read_peak_memory(environment: dict[str, Any]) -> dict[str, int | None]:
    """Return the largest peak memory of the run's sessions in bytes, on the host and on a GPU.

    Args:
        environment: what environment.json holds.

    Returns:
        "host" and "gpu"; None if no session recorded it.
    """
    recorded = [session.get("peak_memory_bytes", {}) for session in (environment, *environment["earlier"])]
    return {
        place: max((each[place] for each in recorded if each.get(place) is not None), default=None)
        for place in ("host", "gpu")
    }
