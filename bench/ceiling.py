"""Measures the ceiling of a machine: the rate of the fastest of several matrix products, in operations per second.

One product alone does not show the ceiling. A small product does not keep the whole device busy, and memory limits the
speed of a large one. Besides, on a shared machine any product can be slow for a minute. If the ceiling came from such a
slow product, a program could seem to reach more than 100 % of the ceiling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

SIDES = (512, 1024, 2048)  # the sides of the square matrices on a CPU
GPU_SIDES = (4096, 8192)  # smaller products do not fill a GPU


class Product(NamedTuple):
    """A matrix product that can be timed.

    Attributes:
        call: computes the product, and returns when the result is ready.
        operations: the number of floating-point operations of the product.
    """

    call: Callable[[], object]
    operations: float


def make_products(dtype: str = "float32") -> dict[str, Product]:
    """Return a dict of products of square matrices. Each was called once here, because a first call is slower."""
    import tensorflow as tf  # imported here, because programs that only print results need no TensorFlow

    sides = GPU_SIDES if tf.config.list_physical_devices("GPU") else SIDES
    return {f"product {side}": _make_product(side, dtype) for side in sides}


def _make_product(side: int, dtype: str) -> Product:
    import tensorflow as tf

    a = tf.cast(tf.random.stateless_normal((side, side), (1, 2)), dtype)
    # The sum of one row is ready only when the whole product is. So the call can wait for the product by copying one
    # number from the GPU instead of a matrix.
    product = tf.function(lambda: tf.reduce_sum(tf.cast(tf.matmul(a, a)[0], tf.float32)))
    product()
    return Product(lambda: product().numpy(), 2.0 * side**3)


def find_rate(products: Mapping[str, Product], seconds: Mapping[str, Sequence[float]]) -> float:
    """Return the rate of the fastest product, in operations per second.

    Args:
        products: the products, by name.
        seconds: for each name, the times of the calls of that product in seconds. All are wall times, or all are
            processor times.
    """
    return max(product.operations / min(seconds[name]) for name, product in products.items())
