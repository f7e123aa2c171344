"""Tests image augmentation with wrong arguments, in NumPy (reference), TensorFlow (stock) and C++ (native).

All three must raise the same error. Where TensorFlow cannot raise an error, for example inside a compiled graph, the
augmented image (view) must be NaN.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr import ops, reference, stock
from lowlevel_simclr.contract import view_checks
from lowlevel_simclr.contract.view_params import FINITE_FIELDS, ViewParams
from lowlevel_simclr.verification.mode import build_for_mode
from tests.support.host import on_the_host
from tests.support.op_modes import list_modes
from tests.support.view_inputs import images_of, params_of
from tests.support.view_recipes import RECIPE

IMPLEMENTATIONS = pytest.mark.parametrize("made_by", [reference, stock, ops], ids=["reference", "stock", "native"])
IN_TENSORFLOW = pytest.mark.parametrize("made_by", [stock, ops], ids=["stock", "native"])
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "index -1": ({"index": [3, -1]}, r"index\[1\] is -1\. An index must be in \[0, 2\^32\)\."),
    "index 2^32": ({"index": [2**32, 0]}, r"index\[0\] is 4294967296\. An index must"),
    "index -2^63": ({"index": [-(2**63)]}, r"index\[0\] is -9223372036854775808\. An index must"),
    "epoch -1": ({"epoch": -1}, r"epoch is -1\. It must be in \[0, 2\^32\)\."),
    "epoch 2^32": ({"epoch": 2**32}, r"epoch is 4294967296\. It must"),
    "epoch 2^64": ({"epoch": 2**64}, r"epoch is 18446744073709551616\. It must"),
    "height 0": ({"height": 0}, r"The images have 0 x 32 pixels\. Height and width must be in \[1, 2\^15\)\."),
    "height -5": ({"height": -5}, "The images have -5 x 32 pixels"),
    "width 0": ({"width": 0}, "The images have 32 x 0 pixels"),
    "width 2^15": ({"width": 2**15}, "The images have 32 x 32768 pixels"),
    "size 0": (
        {"sizes": [[32, 32], [0, 5]]},
        r"sizes\[1\] is 0 x 5 pixels\. It must be at least 1 x 1 and at most 32 x ",
    ),
    "size 33": ({"sizes": [[32, 33], [1, 1]]}, r"sizes\[0\] is 32 x 33 pixels\. .* 32 x 32, the size of the images"),
    "size -2^31": ({"sizes": [[1, -(2**31)], [1, 1]]}, r"sizes\[0\] is 1 x -2147483648 pixels"),
    "sizes of one": ({"sizes": [[3, 4]]}, r"sizes has shape \(1, 2\) and type int64\. It must be \(2, 2\) integers"),
    "sizes of three sides": ({"sizes": [[3, 4, 3], [3, 4, 3]]}, r"sizes has shape \(2, 3\) .* height and width"),
    "sizes with fractions": ({"sizes": [[3.0, 4], [3, 4]]}, "type float64"),
    "seed 2^64": ({"seed": 2**64}, "seed is 18446744073709551616"),
    "seed 1/2": ({"seed": 0.5}, r"seed is 0\.5 \(float\)\. It must be one whole number\."),
    "epoch 2.5": ({"epoch": 2.5}, r"epoch is 2\.5 \(float\)\. It must be one whole number\."),
    "epoch infinite": ({"epoch": np.inf}, "epoch is inf .*one whole number"),
    "epoch of two": ({"epoch": np.array([1, 2])}, r"epoch is array\(\[1, 2\]\) \(ndarray\)\. It must be one whole"),
    "height 7.5": ({"height": 7.5}, r"height is 7\.5 .*one whole number"),
    "width of text": ({"width": "text"}, r"width is 'text' \(str\)\. It must be one whole number"),
    "no recipe": ({"recipe": None}, r"recipe is None \(NoneType\)\. It must be a ViewRecipe, but it has no crop_area"),
    "recipe of a number": ({"recipe": -1.0}, r"recipe is -1\.0 \(float\)\. It must be a ViewRecipe"),
    "NaN probability": (
        {"recipe": replace(RECIPE, flip_probability=np.nan)},
        r"flip_probability is nan .*finite",
    ),
    "range of one": ({"recipe": replace(RECIPE, hue=0.1)}, r"recipe\.hue is 0\.1 .* a range \(low, high\) of two"),
    "aspect 0": ({"recipe": replace(RECIPE, crop_aspect=(0, 1))}, r"crop_aspect is \(0\.0, 1\.0\)\. Both .* above 0"),
}


def draw(made_by: Any, **given: Any) -> ViewParams:
    arguments = {"seed": 0, "epoch": 0, "index": [0, 1], "recipe": RECIPE, "height": 32, "width": 32, **given}
    if "sizes" in arguments:
        arguments["sizes"] = np.array(arguments["sizes"])
    return made_by.draw_view_params(**{**arguments, "index": np.array(arguments["index"], np.int64)})


@IMPLEMENTATIONS
@pytest.mark.parametrize("what", BAD)
@on_the_host
def test_what_cannot_be_drawn_is_the_same_sentence_everywhere(made_by: Any, what: str) -> None:
    given, sentence = BAD[what]
    with pytest.raises((ValueError, TypeError), match=sentence):
        draw(made_by, **given)


@IN_TENSORFLOW
@pytest.mark.parametrize("what", BAD)
@on_the_host
def test_it_is_that_sentence_too_while_a_graph_is_built(made_by: Any, what: str) -> None:
    given, sentence = BAD[what]
    with pytest.raises((ValueError, TypeError), match=sentence):
        tf.function(lambda: draw(made_by, **given))()


def test_the_largest_that_fit_are_drawn_alike() -> None:
    given = {"seed": 2**64 - 1, "epoch": 2**32 - 1, "index": [2**32 - 1], "height": 1, "width": 2**15 - 1}
    drawn = [draw(made_by, **given) for made_by in (reference, stock, ops)]
    for other in drawn[1:]:
        np.testing.assert_array_equal(np.asarray(other.box), drawn[0].box)


@functools.cache
def compile_drawn_views(mode: str) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Return a function that draws and makes stock views of some images. The tests of a mode share it."""

    def make(epoch: tf.Tensor, index: tf.Tensor, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        params = stock.draw_view_params(0, epoch, index, RECIPE, 32, 32)
        return params.box, stock.make_views(images, params, 8)

    return build_for_mode(make, mode)


@pytest.mark.parametrize("mode", ["graph", "xla"])
@pytest.mark.parametrize(("epoch", "index"), [(0, [5, -1, 2**32, 6]), (-1, [5, 6, 7, 8]), (2**32, [5, 6, 7, 8])])
def test_a_stock_graph_gives_such_a_row_no_box_and_the_view_is_nan(mode: str, epoch: int, index: list[int]) -> None:
    images = tf.constant(images_of(len(index), 32, 32))
    box, views = compile_drawn_views(mode)(tf.constant(epoch, tf.int64), tf.constant(index, tf.int64), images)
    wrong = np.tile([not (0 <= place < 2**32 and 0 <= epoch < 2**32) for place in index], 2)
    np.testing.assert_array_equal((box.numpy() == view_checks.NO_BOX).all(axis=1), wrong)
    np.testing.assert_array_equal(np.isnan(views.numpy()).all(axis=(1, 2, 3)), wrong)
    np.testing.assert_array_equal(np.isnan(views.numpy()).any(axis=(1, 2, 3)), wrong)


@IN_TENSORFLOW
@on_the_host
def test_an_unknown_epoch_is_refused_or_gives_no_box(made_by: Any) -> None:
    """Test a wrong epoch whose value TensorFlow does not know when it traces the function.

    The native op must raise an error when it runs. The stock op must return the box NO_BOX.
    """
    function = tf.function(lambda epoch: draw(made_by, epoch=epoch).box)
    if made_by is ops:
        with pytest.raises(tf.errors.InvalidArgumentError, match="epoch is -1"):
            function(tf.constant(-1))
    else:
        assert (function(tf.constant(-1)).numpy() == view_checks.NO_BOX).all()
    assert (function(tf.constant(1)).numpy() >= 0).all()


# Arguments of make_views

PARAMS = params_of(4, box=[0, 0, 8, 8])
UNMAKEABLE: dict[str, tuple[dict[str, Any], str]] = {
    "size 0": ({"size": 0}, r"size is 0\. The side of a view must be in \[1, 2\^15\) pixels"),
    "size 2^15": ({"size": 2**15}, "size is 32768. The side"),
    "size 2^40": ({"size": np.array(2**40)}, "size is 1099511627776. The side"),
    "size 2.5": ({"size": 2.5}, r"size is 2\.5 \(float\)\. It must be one whole number"),
    "no size": ({"size": None}, r"size is None \(NoneType\)\. It must be one whole number"),
    "no params": ({"params": None}, r"params are None \(NoneType\)\. They must be ViewParams"),
    "ten params": ({"params": tuple(PARAMS[:10])}, r"params are .* \(tuple\)\. They must be ViewParams"),
    "one grey": (
        {"params": PARAMS._replace(grey=PARAMS.grey[:1])},
        r"grey has shape \(1,\) for 2 .* \(4,\), two",
    ),
    "three boxes": ({"params": PARAMS._replace(box=PARAMS.box[:3])}, r"box has shape \(3, 4\) for 2 .* \(4, 4\), two"),
    "flat order": ({"params": PARAMS._replace(order=PARAMS.order[0])}, r"order has shape \(4,\) for 2 images"),
    "mean NaN": ({"mean": np.nan, "std": 1.0}, "mean is nan and std is 1.0.*all must be finite"),
    "std infinite": ({"mean": 0.5, "std": np.inf}, "std is inf.*all must be finite"),
    "text for std": ({"mean": 0.5, "std": "text"}, "could not convert"),
    "images of text": ({"images": "text"}, r"images have shape \(\)"),
    "no images": ({"images": None}, r"images have shape \(\)|convert a value \(None\)"),
}


@IMPLEMENTATIONS
@pytest.mark.parametrize("what", UNMAKEABLE)
def test_views_that_cannot_be_made_are_refused_everywhere(made_by: Any, what: str) -> None:
    given, sentence = UNMAKEABLE[what]
    with pytest.raises((ValueError, TypeError), match=sentence):
        made_by.make_views(**{"images": images_of(2, 8, 8), "params": PARAMS, "size": 6, **given})


@IMPLEMENTATIONS
def test_small_integer_types_do_not_overflow(made_by: Any) -> None:
    """Test a size of type uint8. Twice 200 must not become 144, as it does in uint8."""
    made = made_by.make_views(images_of(2, 8, 8), PARAMS, np.array(200, np.uint8))
    np.testing.assert_array_equal(made, made_by.make_views(images_of(2, 8, 8), PARAMS, 200))
    small = draw(made_by, height=np.array(200, np.uint8), width=np.array(200, np.uint8))
    np.testing.assert_array_equal(small.box, draw(made_by, height=200, width=200).box)


# Factors


@IMPLEMENTATIONS
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("factor", FINITE_FIELDS)
def test_a_factor_that_is_not_finite_is_refused_by_row(made_by: Any, factor: str, value: float) -> None:
    """Test factors that are NaN or infinite. All three implementations must refuse them.

    If they did not, they would give different results.
    """
    params = params_of(4, box=[0, 0, 8, 8])
    getattr(params, factor)[2] = value
    with pytest.raises(ValueError, match=f"Row 2 has {factor} {value}. It must be finite"):
        made_by.make_views(images_of(2, 8, 8), params, 6)


@functools.cache
def compile_views(made_by: Any, mode: str) -> Callable[..., tf.Tensor]:
    """Return a function of the fields of ViewParams that makes views of two images. The tests of a mode share it."""
    return build_for_mode(lambda *fields: made_by.make_views(images_of(2, 8, 8), ViewParams(*fields), 6), mode)


@pytest.mark.parametrize("mode", ["graph", "xla"])
@pytest.mark.parametrize("factor", FINITE_FIELDS)
def test_a_stock_graph_makes_such_a_view_nan(mode: str, factor: str) -> None:
    params = params_of(4, box=[0, 0, 8, 8])
    getattr(params, factor)[1:3] = np.nan, np.inf
    made = np.isnan(compile_views(stock, mode)(*map(tf.constant, params)).numpy())
    np.testing.assert_array_equal(made.all(axis=(1, 2, 3)), [False, True, True, False])
    np.testing.assert_array_equal(made.any(axis=(1, 2, 3)), [False, True, True, False])


@pytest.mark.parametrize("mode", list_modes()[1:])
@pytest.mark.parametrize("factor", FINITE_FIELDS)
@on_the_host
def test_a_native_graph_refuses_such_a_view(mode: str, factor: str) -> None:
    params = params_of(4, box=[0, 0, 8, 8])
    getattr(params, factor)[2] = np.nan
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Row 2 has the box .* = \(-1, -1, -1, -1\)"):
        compile_views(ops, mode)(*map(tf.constant, params))


# Orders

WRONG_ORDERS = [(0, 1, 2, 4), (-1, 1, 2, 3), (0, 0, 2, 3), (3, 3, 3, 3), (0, 1, 2, 2**31 - 1)]


@IMPLEMENTATIONS
@pytest.mark.parametrize("order", WRONG_ORDERS, ids=str)
def test_an_order_that_is_no_permutation_is_refused_by_row(made_by: Any, order: tuple[int, ...]) -> None:
    """Test orders with another number than 0 to 3, or with one twice.

    Once, the native op left out an operation that it did not know, and the others took it for hue.
    """
    params = params_of(4, box=[0, 0, 8, 8], hue=0.1, brightness=0.5)
    params.order[2] = order
    with pytest.raises(ValueError, match=rf"Row 2 has the order \({order[0]}, .*\)\. It must hold each of 0, 1, 2"):
        made_by.make_views(images_of(2, 8, 8), params, 6)


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_a_stock_graph_makes_the_view_of_such_an_order_nan(mode: str) -> None:
    params = params_of(6, box=[0, 0, 8, 8])
    params.order[:5] = WRONG_ORDERS
    make = build_for_mode(lambda *fields: stock.make_views(images_of(3, 8, 8), ViewParams(*fields), 6), mode)
    made = np.isnan(make(*map(tf.constant, params)).numpy())
    np.testing.assert_array_equal(made.all(axis=(1, 2, 3)), [True] * 5 + [False])
    np.testing.assert_array_equal(made.any(axis=(1, 2, 3)), [True] * 5 + [False])


@pytest.mark.parametrize("mode", list_modes()[1:])
@on_the_host
def test_a_native_graph_refuses_such_an_order(mode: str) -> None:
    params = params_of(4, box=[0, 0, 8, 8])
    params.order[2] = 0, 0, 2, 3
    make = build_for_mode(lambda *fields: ops.make_views(images_of(2, 8, 8), ViewParams(*fields), 6), mode)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Row 2 has the box .* = \(-1, -1, -1, -1\)"):
        make(*map(tf.constant, params))


# Pixels


@IMPLEMENTATIONS
def test_floating_point_images_of_0_to_255_are_refused(made_by: Any) -> None:
    """Test float images with pixels from 0 to 255, where 0 to 1 is expected. They would give white views.

    They must be refused. Values slightly above 1 are allowed.
    """
    params, images = params_of(4, box=[0, 0, 8, 8]), images_of(2, 8, 8).astype(np.float32)
    with pytest.raises(ValueError, match=r"floating-point with pixels up to 2\d\d. They must be in .0, 1.. Divide"):
        made_by.make_views(images, params, 6)
    made_by.make_views(images / 250, params, 6)
    assert made_by.make_views(images[:0], params_of(0, box=[0, 0, 8, 8]), 6).shape[0] == 0
