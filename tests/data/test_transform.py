"""The test transform: every program that represents an image applies the same one, and says which."""

from __future__ import annotations

import pytest

from lowlevel_simclr.data.transform import InferenceTransform, PixelScaling


@pytest.mark.parametrize(
    ("size", "mean", "std", "words"),
    [
        (32, None, None, "the whole image, no augmentation, pixels in [0, 1]"),
        (20, (0.5,), (0.25,), "40x32 resized to 20x20 (bilinear, antialiased), pixels in [0, 1], less 0.5, over 0.25"),
    ],
)
def test_the_transform_is_told_as_it_is(size: int, mean: tuple | None, std: tuple | None, words: str) -> None:
    shape = (7, 32, 32 if size == 32 else 40, 3)
    said = InferenceTransform(size, PixelScaling(mean, std)).describe(shape)
    assert said.removeprefix("the whole image, no augmentation, ") == words.removeprefix(
        "the whole image, no augmentation, "
    )
