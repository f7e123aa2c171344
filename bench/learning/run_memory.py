"""Reads the peak memory of a training run from its environment.json."""

from __future__ import annotations

from typing import Any


def read_peak_memory(environment: dict[str, Any]) -> dict[str, int | None]:
    """Return the peak memory of a run in bytes.

    A run that was resumed has several sessions. Its peak is the largest of the peaks of its sessions.

    Args:
        environment: the content of environment.json.

    Returns:
        The peak on the "host" and the peak on the "gpu", each None if no session recorded it.
    """
    recorded = [session.get("peak_memory_bytes", {}) for session in (environment, *environment["earlier"])]
    return {
        place: max((each[place] for each in recorded if each.get(place) is not None), default=None)
        for place in ("host", "gpu")
    }
