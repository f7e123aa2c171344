"""Tests image augmentation in NumPy (reference) and in TensorFlow's own ops (stock) with wrong arguments.

Both must refuse them with the same message.
"""

from __future__ import annotations

import numpy as np
import pytest

from lowlevel_simclr.reference.draw_view_params import draw_view_params as draw
from lowlevel_simclr.reference.make_views import make_views
from lowlevel_simclr.stock.draw_view_params import draw_view_params as stock_draw
from lowlevel_simclr.stock.make_views import make_views as stock_views
from tests.support.view_inputs import images_of, params_of
from tests.support.view_recipes import RECIPE

# Images, sizes, boxes, colours


@pytest.mark.parametrize("views", [make_views, stock_views], ids=["reference", "stock"])
@pytest.mark.parametrize(
    "box",
    [(0, 0, 0, 4), (0, 0, 4, 0), (-1, 0, 4, 4), (0, -1, 4, 4), (3, 0, 6, 4), (0, 7, 4, 4), (0, 0, 4, -2)],
    ids=str,
)
def test_a_box_that_is_empty_or_outside_is_refused_by_row(views, box):
    params = params_of(4, box=[[0, 0, 8, 10], [0, 0, 8, 10], box, [0, 0, 1, 1]])
    text = r"Row 2 has the box \(y, x, height, width\) = " + str(box).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=text):
        views(images_of(2, 8, 10), params, 8)


@pytest.mark.parametrize("views", [make_views, stock_views], ids=["reference", "stock"])
@pytest.mark.parametrize("colour", [{"saturation": 0.5}, {"hue": 0.1}, {"grey": True}], ids=str)
@pytest.mark.parametrize("channels", [1, 4])
def test_colours_of_other_than_three_channels_are_refused(views, colour, channels):
    with pytest.raises(ValueError, match=f"{channels} channels, not 3"):
        views(images_of(1, 8, 8, channels), params_of(2, box=[0, 0, 8, 8], **colour), 8)


@pytest.mark.parametrize("views", [make_views, stock_views], ids=["reference", "stock"])
def test_other_mistakes_are_refused(views):
    images, params = images_of(1, 8, 8), params_of(2, box=[0, 0, 8, 8])
    with pytest.raises(ValueError, match="must be .N, H, W, C."):
        views(images[0], params, 8)
    with pytest.raises(ValueError, match="images are int32"):
        views(images.astype(np.int32), params, 8)
    with pytest.raises(ValueError, match="size is 0"):
        views(images, params, 0)
    with pytest.raises(ValueError, match=r"box has shape \(2, 4\) for 2 images"):
        views(images_of(2, 8, 8), params, 8)
    with pytest.raises(ValueError, match="Give both or neither"):
        views(images, params, 8, mean=0.5)
    for mean, std in ((0.5, 0.0), ((0.5, 0.5), (0.5, 0.5))):
        with pytest.raises(ValueError, match="one for each of the 3 channels"):
            views(images, params, 8, mean=mean, std=std)


# Index and seed


@pytest.mark.parametrize("function", [draw, stock_draw], ids=["reference", "stock"])
@pytest.mark.parametrize("index", [np.zeros((2, 2), int), np.zeros(3), np.int64(3)], ids=["2-D", "float", "scalar"])
def test_an_index_that_is_no_vector_of_integers_is_refused(function, index):
    with pytest.raises(ValueError, match="must be .N,. integers"):
        function(0, 0, index, RECIPE, 32, 32)


@pytest.mark.parametrize("function", [draw, stock_draw], ids=["reference", "stock"])
def test_a_seed_out_of_range_is_refused(function):
    with pytest.raises(ValueError, match="seed is -1"):
        function(-1, 0, np.arange(3), RECIPE, 32, 32)
