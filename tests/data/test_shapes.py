"""Tests `shapes`, a data set of drawn shapes that is part of this package.

The same seed must give the same images. All classes must be equally frequent. Each image must be drawn without the
others. The raw pixels alone must not be enough to classify an image.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from lowlevel_simclr.data import shapes


def test_images_and_labels_are_what_data_sets_are() -> None:
    images, labels = shapes.draw_shapes(25, seed=0)
    assert images.shape == (25, 32, 32, 3) and images.dtype == np.uint8
    assert labels.dtype == np.int64 and np.array_equal(labels, np.arange(25) % 10)
    assert len(shapes.CLASSES) == 10


def test_an_image_is_a_function_of_seed_and_index() -> None:
    whole, labels = shapes.draw_shapes(40, seed=3)
    part, part_labels = shapes.draw_shapes(13, seed=3, first=20)
    assert np.array_equal(whole[20:33], part) and np.array_equal(labels[20:33], part_labels)
    assert not np.array_equal(whole, shapes.draw_shapes(40, seed=4)[0])


def test_any_64_bit_seed_draws() -> None:
    high, low = shapes.draw_shapes(10, seed=2**63 + 1)[0], shapes.draw_shapes(10, seed=1)[0]
    assert not np.array_equal(high, low)


def test_a_shape_stays_inside_and_stands_out() -> None:
    images, _ = shapes.draw_shapes(500, seed=1)
    grey = images[..., 0].astype(float) / 255
    assert np.array_equal(images[..., 0], images[..., 1]) and np.array_equal(images[..., 0], images[..., 2])
    border = np.concatenate([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], axis=1)
    ground = np.median(border, axis=1)
    # Shape and background differ by at least 0.4, and the noise is at most 0.06. So a pixel that differs by more than
    # 0.25 from the background is part of the shape.
    of_shape = abs(grey - ground[:, None, None]) > 0.25
    share = of_shape.mean(axis=(1, 2))
    assert share.min() > 0.01 and share.max() < 0.5
    both = grey.mean(axis=(1, 2)) > 0.5
    assert 0.4 < both.mean() < 0.6  # about half of the backgrounds are light


@pytest.mark.parametrize("kind", range(10), ids=shapes.CLASSES)
def test_each_kind_has_its_own_area(kind: int) -> None:
    """Compare the area of each drawn shape with its formula, in units of the squared radius.

    If a shape were drawn wrongly, its area would be wrong too.
    """
    expected = {
        "circle": np.pi * 0.85**2,
        "square": 1.5**2,
        "triangle": 3 * np.sqrt(3) * 0.5**2,
        "cross": 2 * 2 * 0.56 - 0.56**2,
        "ring": np.pi * (0.97**2 - 0.53**2),
        "star": 10 * 0.5 * 0.42 * np.sin(np.pi / 5),
        "bar": 2 * 0.48,
        "two discs": 2 * np.pi * 0.4**2,
    }
    grid = (np.arange(2000) + 0.5) / 1000 * 1.1 - 1.1
    x, y = np.meshgrid(grid, grid)
    name = shapes.CLASSES[kind]
    area = (shapes.DISTANCE[name](x, y) < 0).mean() * 2.2**2
    if name in expected:
        # A pixel of this grid is 0.0011 wide, and the outline of a shape is shorter than 10. So the pixels on the
        # outline change the area by less than 0.011.
        assert area == pytest.approx(expected[name], abs=0.011)
    else:
        assert 0.5 < area < 1.8


def test_raw_pixels_say_little() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    images, labels = shapes.draw_shapes(3000, seed=0)
    x = images[..., 0].reshape(3000, -1).astype(np.float32)
    knn = KNeighborsClassifier(20, metric="cosine", algorithm="brute").fit(x[:2500], labels[:2500])
    assert 0.2 < knn.score(x[2500:], labels[2500:]) < 0.6


def test_six_thousand_are_drawn_in_seconds() -> None:
    """Test the processor time. On a usual machine it is below 2 s. The limit is 10 s, because a machine may be slow."""
    start = time.process_time()
    images, _ = shapes.draw_shapes(6000, seed=0)
    assert len(images) == 6000 and time.process_time() - start < 10


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="count is -1"):
        shapes.draw_shapes(-1, seed=0)
