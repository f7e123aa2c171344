"""Tests the learning rate of a training with a time limit (--budget), and the number of its last step.

This number must be unknown until the last segment begins. A segment is a part of the training in which all views have
one size.
"""

from __future__ import annotations

import pytest
import tensorflow as tf

from lowlevel_simclr.training.course import Segment
from lowlevel_simclr.training.pace import NO_END, Pace


def test_the_learning_rate_follows_the_share_of_the_training() -> None:
    pace = Pace(2.0, 0.25)
    rates = []
    ends = []
    for segment in (Segment(0, 10, 16, 0.0, 0.25), Segment(10, 12, 24, 0.25, 1.0)):
        pace.enter(segment)
        ends.append(int(pace.last))
        rates += [float(pace.compute_rate(tf.constant(done, tf.int64))) for done in range(segment.first, segment.last)]
    assert rates[:10] == pytest.approx([0.2 * (done + 1) for done in range(10)])
    assert rates[10:] == pytest.approx([2.0, 1.0])
    assert ends == [NO_END, 12]
