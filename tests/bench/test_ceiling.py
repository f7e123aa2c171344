"""Tests how benchmarks measure the highest rate of operations of a machine: by its fastest matrix product."""

from __future__ import annotations

import pytest

from bench import ceiling


def test_the_fastest_product_is_the_ceiling() -> None:
    products = {"a": ceiling.Product(lambda: None, 8.0), "b": ceiling.Product(lambda: None, 64.0)}
    assert ceiling.find_rate(products, {"a": [2.0, 1.0], "b": [4.0, 5.0]}) == 16.0
    assert ceiling.find_rate(products, {"a": [0.1], "b": [4.0]}) == 80.0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_of_several_sizes_are_made(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "SIDES", (8, 16))
    monkeypatch.setattr(ceiling, "GPU_SIDES", (8, 16))
    products = ceiling.make_products(dtype)
    assert {name: product.operations for name, product in products.items()} == {"product 8": 1024, "product 16": 8192}
    assert all(product.call() is not None for product in products.values())
