"""The rule by which a result is called right allows what it says, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.closeness import EPSILON, C, assert_close


def test_rule_allows_c_eps_scale_where_stock_is_exact():
    right, scale = np.array([0.5, 0.25]), np.array([1.0, 4.0])
    allowed = C * EPSILON["float32"] * scale
    stock = right.astype(np.float32)
    assert_close((right + allowed).astype(np.float32), right, stock, dtype="float32", scale=scale)
    with pytest.raises(AssertionError, match=r"50.0% of 2 elements.*worst at index \(0,\)"):
        assert_close((right + allowed[::-1]).astype(np.float32), right, stock, dtype="float32", scale=scale)


def test_rule_allows_twice_the_worst_error_of_stock_in_units_of_scale():
    right, scale = np.array([1.0, 0.0]), np.array([1.0, 1 / 16])
    stock = np.array([1 + 2.0**-10, 0], np.float32)  # exact at the second element, wrong at the first
    assert_close(np.array([1, 2.0**-13], np.float32), right, stock, dtype="float32", scale=scale)
    with pytest.raises(AssertionError, match="worst at index"):
        assert_close(np.array([1, 2.0**-12.9], np.float32), right, stock, dtype="float32", scale=scale)
    exact, neighbour = right.astype(np.float32), (stock + np.float32(1), right + 1)
    assert_close(np.array([1, 2.0**-13], np.float32), right, exact, dtype="float32", scale=scale, draws=[neighbour])
    with pytest.raises(AssertionError, match="worst at index"):  # without the baseline's error
        assert_close(np.array([1, 2.0**-13], np.float32), right, None, dtype="float32", scale=scale)


def test_rule_allows_one_rounding_to_the_type_of_the_result():
    right, scale = np.array([1.0 + 2.0**-11 + 2.0**-30, 0.0]), 2.0**-10
    stock = right.astype(np.float32)
    assert_close(right.astype(np.float16), right, stock, dtype="float16", scale=scale)
    with pytest.raises(AssertionError, match="worst at index"):
        assert_close(np.array([1 - 2.0**-11, 0], np.float16), right, stock, dtype="float16", scale=scale)
    with pytest.raises(AssertionError, match="worst at index"):  # a float32 result has no such rounding
        assert_close(np.array([1.0, 0], np.float32), right, stock, dtype="float16", scale=scale)
    with pytest.raises(AssertionError, match="widen z to float32"):
        assert_close(right.astype(np.float16), right, right.astype(np.float16), dtype="float16", scale=scale)


def test_rule_on_values_that_are_not_finite():
    right = np.array([1e5, -1e5, np.nan])
    stock = right.astype(np.float32)
    assert_close(np.array([np.inf, -np.inf, np.nan], np.float16), right, stock, dtype="float16", scale=1.0)
    for wrong in ([-np.inf, -np.inf, np.nan], [np.inf, np.nan, np.nan], [np.inf, -np.inf, 0.0]):
        with pytest.raises(AssertionError, match="33.3% of 3 elements"):
            assert_close(np.array(wrong, np.float16), right, stock, dtype="float16", scale=1.0)
    with pytest.raises(AssertionError, match="33.3% of 3 elements"):  # float32 holds 1e5
        assert_close(np.array([np.inf, -1e5, np.nan], np.float32), right, stock, dtype="float32", scale=1.0)
    with pytest.raises(AssertionError, match="no baseline"):
        assert_close(stock, right, np.full(3, np.nan, np.float32), dtype="float32", scale=1.0)


def test_rule_allows_a_row_of_scale_0_nothing():
    right, stock = np.zeros([2, 1]), np.zeros([2, 1], np.float32)
    scale = np.array([[1.0], [0.0]])
    assert_close(np.array([[1e-7], [0]], np.float32), right, stock, dtype="float32", scale=scale)
    with pytest.raises(AssertionError, match=r"worst at index \(1, 0\)"):
        assert_close(np.array([[0], [1e-30]], np.float32), right, stock, dtype="float32", scale=scale)
