"""Tests how a benchmark computes the time of each stage of a training step, and the error (noise) of this time.

All partial steps are timed in each of several turns. The time of a stage is the difference between two partial steps.
"""

from __future__ import annotations

import numpy as np
import pytest

from bench.step import stages


def test_a_stage_is_a_difference_of_medians() -> None:
    found = stages.subtract_stages({"views": [1.0, 1.0, 9.0], "loss": [3.0, 3.0, 11.0]})
    assert found.seconds == {"views": 1.0, "loss": 2.0}
    assert found.noise["views"] > 1.0 and found.noise["loss"] == pytest.approx(
        0, abs=1e-12
    )  # in turn 3, both partial steps took 8 s longer, which cancels out


def test_the_noise_is_two_standard_errors_of_a_median() -> None:
    """Test a stage that takes no time. In about one of twenty measurements, its time exceeds the noise by chance."""
    random = np.random.default_rng(0)
    seen = 0
    for _ in range(400):
        wall = {"a": list(random.normal(5, 1, 41)), "b": list(random.normal(5, 1, 41))}
        found = stages.subtract_stages(wall)
        seen += abs(found.seconds["b"]) > found.noise["b"]
    assert 0.01 < seen / 400 < 0.1
