"""Tests how the time of a stage of the step and the noise of this time are computed from the times of several turns."""

from __future__ import annotations

import numpy as np
import pytest

from bench.step import stages


def test_a_stage_is_a_difference_of_medians() -> None:
    found = stages.subtract_stages({"views": [1.0, 1.0, 9.0], "loss": [3.0, 3.0, 11.0]})
    assert found.seconds == {"views": 1.0, "loss": 2.0}
    assert found.noise["views"] > 1.0 and found.noise["loss"] == pytest.approx(
        0, abs=1e-12
    )  # both times of a turn have the same extra load, which cancels out


def test_the_noise_is_two_standard_errors_of_a_median() -> None:
    """Test a stage that takes no time. By chance, its measured time exceeds the noise in about one run of twenty."""
    random = np.random.default_rng(0)
    seen = 0
    for _ in range(400):
        wall = {"a": list(random.normal(5, 1, 41)), "b": list(random.normal(5, 1, 41))}
        found = stages.subtract_stages(wall)
        seen += abs(found.seconds["b"]) > found.noise["b"]
    assert 0.01 < seen / 400 < 0.1
