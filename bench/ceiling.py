"""The ceiling of a machine: the fastest of several matrix products.

One product of one size is no ceiling. A small one does not fill the device, a large one meets the limits of memory, and
on a shared machine any of them can be slow that minute. So a share of it could be above 100 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

SIDES = (512, 1024, 2048)  # of square matrices on a CPU
GPU_SIDES = (4096, 8192)  # smaller products do not fill a GPU


class Product(NamedTuple):
    """A matrix product.

    Attributes:
        call: computes it, and returns when it is there.
        operations: its floating-point operations.
    """

    call: Callable[[], object]
    operations: float


def make_products(dtype: str = "float32") -> dict[str, Product]:
    """Return products of square matrices by their names, each called once."""
    import tensorflow as tf  # here, because what shows results needs no TensorFlow

    sides = GPU_SIDES if tf.config.list_physical_devices("GPU") else SIDES
    return {f"product {side}": _make_product(side, dtype) for side in sides}


def _make_product(side: int, dtype: str) -> Product:
    import tensorflow as tf

    a = tf.cast(tf.random.stateless_normal((side, side), (1, 2)), dtype)
    # The sum of one row waits for the whole product, and copies one number from a GPU instead of a matrix.
    product = tf.function(lambda: tf.reduce_sum(tf.cast(tf.matmul(a, a)[0], tf.float32)))
    product()
    return Product(lambda: product().numpy(), 2.0 * side**3)


def find_rate(products: Mapping[str, Product], seconds: Mapping[str, Sequence[float]]) -> float:
    """Return the operations a second of the fastest product.

    Args:
        products: by their names.
        seconds: what the calls of each took, wall or processor time.
    """
    return max(product.operations / min(seconds[name]) for name, product in products.items())
