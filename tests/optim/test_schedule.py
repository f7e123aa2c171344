"""Tests the learning rate of each step: linear warm-up, then cosine decay, and scaling with the batch size."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.optim import schedule

EPS = float(np.finfo(np.float32).eps)


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.05), (4, 0.25), (9, 0.5), (10, 0.5), (55, 0.25), (100, 0.0), (1000, 0.0)]
)
def test_the_schedule_at_its_joints(step: int, rate: float) -> None:
    found = schedule.compute_learning_rate(tf.constant(step, tf.int64), 0.5, 10, 100)
    assert found.dtype == tf.float32 and float(found) == pytest.approx(rate, abs=4 * EPS)


def test_the_schedule_rises_then_falls() -> None:
    rates = [float(schedule.compute_learning_rate(tf.constant(step), 0.5, 10, 100)) for step in range(101)]
    assert all(np.diff(rates[:10]) > 0) and all(np.diff(rates[10:]) < 0)


def test_a_schedule_without_warm_up_starts_at_its_base() -> None:
    assert float(schedule.compute_learning_rate(tf.constant(0), 0.5, 0, 100)) == 0.5


def test_scaling_of_the_learning_rate_with_the_batch() -> None:
    assert schedule.scale_learning_rate(0.3, 512, "linear") == pytest.approx(0.6)
    assert schedule.scale_learning_rate(0.075, 4096, "sqrt") == pytest.approx(4.8)
    assert schedule.scale_learning_rate(0.3, 512, "none") == 0.3
    with pytest.raises(ValueError, match="no learning-rate scaling 'cubic'"):
        schedule.scale_learning_rate(0.3, 512, "cubic")
