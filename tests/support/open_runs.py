"""Helpers for tests that open the folder of a training run: settings, a comparison of settings, rows of metrics."""

from __future__ import annotations

CONFIG = {"preset": "shapes", "loss": {"temperature": 0.2}, "data": {"data_dir": None}}


def compare_temperature(temperature: float = 0.2):
    """Return a function that lists the differences between a stored configuration and one with this temperature."""

    def difference(stored: dict) -> list[str]:
        if "loss" not in stored:
            raise ValueError("the section 'loss' is missing")
        before = stored["loss"]["temperature"]
        return [] if before == temperature else [f"temperature: {before} -> {temperature}"]

    return difference


def make_row(step: int, **more: float) -> dict:
    return {"step": step, "loss": 6.0 - step / 8, "top1": 0.25, **more}
