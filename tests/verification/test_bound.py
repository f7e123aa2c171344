"""Tests the rule that decides whether the result of an op (loss, views, optimizer) is close enough to the right values.

The rule divides each error by the size of the quantity (`scale`). It allows about twice the error E that the usual
formula ("stock") makes in the same precision. These tests need only NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest

from lowlevel_simclr.verification.bound import (
    EPSILON,
    FACTOR,
    LARGEST,
    SLACK,
    SMALLEST_NORMAL,
    compare_with_reference,
    compute_gradient_scale,
    compute_loss_scale,
    compute_margins,
    compute_temperature_scale,
    find_accumulation_type,
    find_decided_rows,
)
from tests.support.closeness import assert_close

FLOAT32 = {"scale": 1.0, "accumulation": "float32"}


@pytest.mark.parametrize("dtype", EPSILON)
def test_constants_are_those_of_the_type(dtype):
    info = ml_dtypes.finfo(dtype)
    constants = EPSILON[dtype], SMALLEST_NORMAL[dtype], LARGEST[dtype]
    assert constants == (float(info.eps), float(info.smallest_normal), float(info.max))
    assert find_accumulation_type(dtype) == ("float64" if dtype == "float64" else "float32")


def test_rule_allows_8_eps_scale_where_stock_is_exact():
    right, scale = np.array([0.5, 0.25]), np.array([1.0, 4.0])
    allowed = SLACK * EPSILON["float32"] * scale
    stock = right.astype(np.float32)
    assert_close((right + allowed).astype(np.float32), right, stock, dtype="float32", scale=scale)
    with pytest.raises(AssertionError, match=r"50.0% of 2 elements.*worst at index \(0,\)"):
        assert_close((right + allowed[::-1]).astype(np.float32), right, stock, dtype="float32", scale=scale)


def test_rule_allows_twice_the_worst_error_of_stock_in_units_of_scale():
    right, scale = np.array([1.0, 0.0]), np.array([1.0, 1 / 16])
    stock = np.array([1 + 2.0**-10, 0], np.float32)  # only the first element of the stock result has an error
    assert_close(np.array([1, 2.0**-13], np.float32), right, stock, dtype="float32", scale=scale)
    with pytest.raises(AssertionError, match="worst at index"):
        assert_close(np.array([1, 2.0**-12.9], np.float32), right, stock, dtype="float32", scale=scale)
    exact, neighbour = right.astype(np.float32), (stock + np.float32(1), right + 1)
    assert_close(np.array([1, 2.0**-13], np.float32), right, exact, dtype="float32", scale=scale, draws=[neighbour])
    with pytest.raises(AssertionError, match="worst at index"):  # without a stock result, E is 0
        assert_close(np.array([1, 2.0**-13], np.float32), right, None, dtype="float32", scale=scale)


def test_rule_allows_one_rounding_to_the_type_of_the_result():
    right, scale = np.array([1.0 + 2.0**-11 + 2.0**-30, 0.0]), 2.0**-10
    stock = right.astype(np.float32)
    assert_close(right.astype(np.float16), right, stock, dtype="float16", scale=scale)
    with pytest.raises(AssertionError, match="worst at index"):
        assert_close(np.array([1 - 2.0**-11, 0], np.float16), right, stock, dtype="float16", scale=scale)
    with pytest.raises(AssertionError, match="worst at index"):  # a float32 result may not be rounded to float16
        assert_close(np.array([1.0, 0], np.float32), right, stock, dtype="float16", scale=scale)
    with pytest.raises(ValueError, match="widen z to float32"):
        assert_close(right.astype(np.float16), right, right.astype(np.float16), dtype="float16", scale=scale)


def test_rule_on_values_that_are_not_finite():
    right = np.array([1e5, -1e5, np.nan])
    stock = right.astype(np.float32)
    assert_close(np.array([np.inf, -np.inf, np.nan], np.float16), right, stock, dtype="float16", scale=1.0)
    for wrong in ([-np.inf, -np.inf, np.nan], [np.inf, np.nan, np.nan], [np.inf, -np.inf, 0.0]):
        with pytest.raises(AssertionError, match="33.3% of 3 elements"):
            assert_close(np.array(wrong, np.float16), right, stock, dtype="float16", scale=1.0)
    with pytest.raises(AssertionError, match="33.3% of 3 elements"):  # infinity is wrong: float32 can hold 1e5
        assert_close(np.array([np.inf, -1e5, np.nan], np.float32), right, stock, dtype="float32", scale=1.0)
    with pytest.raises(AssertionError, match="no E"):
        assert_close(stock, right, np.full(3, np.nan, np.float32), dtype="float32", scale=1.0)


def test_rule_allows_a_row_of_scale_0_nothing():
    right, stock = np.zeros([2, 1]), np.zeros([2, 1], np.float32)
    scale = np.array([[1.0], [0.0]])
    assert_close(np.array([[1e-7], [0]], np.float32), right, stock, dtype="float32", scale=scale)
    with pytest.raises(AssertionError, match=r"worst at index \(1, 0\)"):
        assert_close(np.array([[0], [1e-30]], np.float32), right, stock, dtype="float32", scale=scale)


def test_the_bound_is_twice_the_error_of_stock_plus_8_eps():
    assert (FACTOR, SLACK) == (2, 8)
    right, stock = np.array([0.0, 4.0]), np.array([0.125, 4.0], np.float32)
    found = np.array([0.25, 4.0], np.float32)
    comparison = compare_with_reference(found, right, stock, scale=[0.5, 1.0], accumulation="float32")
    assert comparison == (0.5, 2 * 0.25 + 8 * 2.0**-23, (0,), 0.0, 0.25)
    alone = compare_with_reference(found, right, None, scale=[0.5, 1.0], accumulation="float32")
    assert alone == (0.5, 8 * 2.0**-23, (0,), 0.5, 0.0) and not alone.holds


def test_a_half_result_may_be_rounded_once_more_and_no_further():
    right, base = np.array([1.0, 2.0**-20]), 8 * 2.0**-23
    for place, reach in ((0, 1 + base), (1, 2.0**-14)):  # the bound grows by half a float16 spacing
        found = right.astype(np.float16)
        found[place] = 2 if place == 0 else 1
        bound = compare_with_reference(found, right, None, **FLOAT32).bound
        assert bound == base + 2.0**-11 * reach


def test_a_finer_type_of_the_result_adds_no_rounding():
    found, right = np.array([1 + 9 * 2.0**-23]), np.array([1.0])
    assert compare_with_reference(found, right, None, **FLOAT32).bound == 8 * 2.0**-23


def test_the_element_beyond_its_bound_is_found_beside_one_that_uses_all_of_it():
    right, bound = np.zeros(2), 8 * 2.0**-23
    found = np.array([bound, np.nextafter(bound, 1)])
    comparison = compare_with_reference(found, right, None, **FLOAT32)
    assert not comparison.holds and comparison.place == (1,) and comparison.share_beyond == 0.5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_nan_or_infinite_never_holds(value):
    right = np.array([1.0, 2.0])
    for dtype in ("float16", "float32", "float64"):
        found = np.array([1.0, value], dtype)
        for stock in (None, right.astype(np.float32), np.array([1.0, 1e4], np.float32)):
            comparison = compare_with_reference(found, right, stock, **FLOAT32)
            assert not comparison.holds and comparison.place == (1,) and comparison.error == np.inf


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("value", [0.0, 1e4, np.nan, -np.inf])
def test_only_infinity_is_right_where_the_reference_is_infinite(dtype, value):
    right = np.array([np.inf, 1.0])
    stock = right.astype(np.float32)
    assert compare_with_reference(right.astype(dtype), right, stock, **FLOAT32).holds
    assert not compare_with_reference(np.array([value, 1.0], dtype), right, stock, **FLOAT32).holds


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nothing_holds_where_stock_is_not_finite(value):
    """Test a stock result that is NaN or infinite.

    If the bound became infinite, every result would pass.
    """
    right, stock = np.array([1.0, 2.0]), np.array([1.0, value], np.float32)
    comparison = compare_with_reference(right.astype(np.float32), right, stock, **FLOAT32)
    assert not comparison.holds and np.isnan(comparison.bound) and np.isnan(comparison.stock_error)
    exact, found = right.astype(np.float32), right + 0.5
    draws = [(exact + np.float32(1), right), (stock, right)]
    assert compare_with_reference(found, right, exact, draws=draws[:1], **FLOAT32).holds
    for order in (draws, draws[::-1]):
        assert not compare_with_reference(found, right, exact, draws=order, **FLOAT32).holds


def test_draws_are_made_only_for_a_result_that_fails_without_them():
    right = np.array([1.0, 2.0])
    made = []

    def draw() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        made.append(1)
        yield (right + 0.25).astype(np.float32), right

    exact = right.astype(np.float32)
    assert compare_with_reference(exact, right, exact, draws=draw(), **FLOAT32).holds and not made
    comparison = compare_with_reference(exact + np.float32(0.5), right, exact, draws=draw(), **FLOAT32)
    assert comparison.holds and made and comparison.stock_error == 0.25


@pytest.mark.parametrize("shape", [(), (1,), (2, 1), (3,)])
def test_a_result_of_another_shape_never_holds(shape):
    right = np.ones(2)
    assert not compare_with_reference(np.ones(shape, np.float32), right, right.astype(np.float32), **FLOAT32).holds
    with pytest.raises(AssertionError, match="expected"):
        assert_close(np.ones(shape, np.float32), right, None, dtype="float32", scale=1.0)


def test_a_result_without_elements_holds():
    empty = np.zeros((2, 0), np.float32)
    assert compare_with_reference(empty, empty, empty, **FLOAT32).holds
    assert_close(empty, empty, None, dtype="float32", scale=np.zeros((2, 0)))


def test_stock_results_of_another_shape_or_a_coarser_type_are_refused():
    right = np.ones(2)
    with pytest.raises(ValueError, match=r"shape \(1,\), its reference \(2,\)"):
        compare_with_reference(right, right, np.ones(1, np.float32), **FLOAT32)
    with pytest.raises(ValueError, match="stock result is bfloat16: widen z to float32"):
        compare_with_reference(right, right, right.astype(ml_dtypes.bfloat16), **FLOAT32)


@pytest.mark.parametrize("scale", [-1.0, np.nan, np.inf])
def test_a_scale_that_is_negative_or_not_finite_is_refused(scale):
    right = np.ones(2)
    with pytest.raises(ValueError, match="scale must be finite"):
        compare_with_reference(right, right, None, scale=[1.0, scale], accumulation="float32")


def test_scales_are_the_sizes_of_loss_and_gradients():
    z, cotangent = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 0.5], [8.0, 6.0]]), np.array([1.0, -4.0, 0.5, 2.0])
    assert compute_loss_scale(0.25) == 5
    expected = np.array([[16 / 5], [0], [32], [1.6]])
    np.testing.assert_allclose(compute_gradient_scale(z, cotangent, 0.25), expected, rtol=2 * EPSILON["float64"])
    assert compute_temperature_scale(cotangent, 0.25) == 7.5 * 16 * 5
    # The scale must be computed in float64, even if the cotangent is float32.
    assert compute_gradient_scale(z, np.float32([0.1]), 0.3)[0, 0] == float(np.float32(0.1)) * (1 / 0.3) * (1 / 5)


def test_a_row_is_decided_where_its_margin_is_64_spacings():
    turned = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(compute_margins(turned), np.ones(4))
    assert np.all(find_decided_rows(turned, "float32"))
    # Each row has a positive (the other view of its image) and negatives (all other rows). The similarity with the
    # positive is larger than that with a negative by angle^2 / 2.
    for angle, decided in ((1e-3, False), (1e-2, True)):
        near = np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]] * 2)
        assert np.all(np.abs(compute_margins(near) - angle**2 / 2) < 1e-9)
        assert np.all(find_decided_rows(near, "float32") == decided) and np.all(find_decided_rows(near, "float64"))
    assert np.all(find_decided_rows(turned[:2], "float32"))  # with one pair, there are no negatives
