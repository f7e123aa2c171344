"""Tests how training without a time limit divides its steps into stages. Each stage has its own size of the images."""

from __future__ import annotations

import pytest

from lowlevel_simclr.config.view_sizes import ViewSize
from lowlevel_simclr.training.course import FixedCourse, divide_steps

THREE = [ViewSize(8, 0.3), ViewSize(12, 0.4), ViewSize(16, 0.3)]


def test_the_stages_divide_the_steps_by_their_shares() -> None:
    segments = divide_steps(THREE, 10)
    assert [(each.side, each.first, each.last) for each in segments] == [(8, 0, 3), (12, 3, 7), (16, 7, 10)]


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 1000])
def test_every_step_has_one_size(steps: int) -> None:
    course = FixedCourse(THREE, steps)
    sides = [course.find_segment(done).side for done in range(steps)]
    assert sides == sorted(sides) and sides[-1] == 16 and course.last == steps
    assert not course.needs_decision(0)
