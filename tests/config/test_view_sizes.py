"""Tests the setting that makes the images (views) grow during training, in stages.

Each stage has a size of the views and a share of the training.
"""

from __future__ import annotations

import pytest

from lowlevel_simclr.config.identity import replace
from lowlevel_simclr.config.settings import Config, ConfigError
from lowlevel_simclr.config.validation import validate
from lowlevel_simclr.config.view_sizes import compare_cost, format_view_sizes, parse_view_sizes


def test_stages_are_read_and_written() -> None:
    texts = ("16:0.3", "20:0.4", "24:0.3")
    sizes = parse_view_sizes(texts)
    assert [size.side for size in sizes] == [16, 20, 24] and [size.share for size in sizes] == [0.3, 0.4, 0.3]
    assert format_view_sizes(sizes) == texts


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["16"], "has '16'. Give each stage as pixels:share"),
        (["16:x"], "has '16:x'"),
        (["4:1"], "at least 8 pixels"),
        (["16:0", "24:1"], "has '16:0'"),
        (["16:0.5", "24:0.4"], "add up to 0.9. They must add up to 1."),
        (["24:0.5", "16:0.5"], "sides 24 16. Give them in growing order"),
        (["16:0.5", "16:0.5"], "growing order"),
    ],
)
def test_wrong_stages_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_view_sizes(texts)


def test_the_last_stage_has_the_size_of_the_evaluation() -> None:
    validate(replace(Config(), image_sizes=("16:0.5", "32:0.5"), image_size=32))
    with pytest.raises(ConfigError, match="--image-sizes ends with 24, but --image-size is 32. Leave --image-size out"):
        validate(replace(Config(), image_sizes=("16:0.5", "24:0.5"), image_size=32))


def test_larger_views_cost_more_but_less_than_their_pixels() -> None:
    assert 1 < compare_cost(24, 16) < 24**2 / 16**2
    assert compare_cost(24, 16) * compare_cost(16, 24) == pytest.approx(1)
