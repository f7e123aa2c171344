"""Tests the choice of images for pictures: one of each class, then a second one of each class, and so on."""

from __future__ import annotations

import numpy as np
import pytest

from lowlevel_simclr.evaluation.turns import choose_in_turn


def test_every_class_comes_once_before_any_comes_twice() -> None:
    labels = np.repeat(np.arange(10), 50)  # the images are sorted by class
    assert labels[choose_in_turn(labels, 10)].tolist() == list(range(10))
    assert labels[choose_in_turn(labels, 12)].tolist() == [*range(10), 0, 1]


@pytest.mark.parametrize("label", [-1, 0])
def test_images_of_one_kind_are_spread_over_all(label: int) -> None:
    chosen = choose_in_turn(np.full(1000, label), 10)
    assert chosen[0] == 0 and chosen[-1] == 999 and np.diff(chosen).min() >= 110
    assert choose_in_turn(np.full(3, label), 10).tolist() == [0, 1, 2]
    assert choose_in_turn(np.zeros(0, np.int64), 10).tolist() == []
