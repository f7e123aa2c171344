"""Computes model FLOP utilisation (MFU): the model's operations per second, divided by the device's peak rate.

The peak rate is the one in the device's data sheet. Only the operations of convolutions and dense layers are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

# Peak rates in operations per second: bfloat16 and float16 without sparsity, and float32 without TF32. Source: NVIDIA's
# data sheets (SXM).
PEAKS = {
    "H200": {"bfloat16": 989e12, "float16": 989e12, "float32": 67e12},
    "H100": {"bfloat16": 989e12, "float16": 989e12, "float32": 67e12},
    "A100": {"bfloat16": 312e12, "float16": 312e12, "float32": 19.5e12},
}


def find_peak_rate(device: str | None, precision: str) -> float | None:
    """Return the device's peak rate in operations per second, or None if the device is not in PEAKS."""
    for name, rates in PEAKS.items():
        if device is not None and name in device:
            return rates.get(precision)
    return None


def count_view_operations(model: tf.keras.Model) -> float:
    """Return how many multiplications and additions the convolutions and dense layers need for one view, forward only.

    Multiplications with padding are counted too, as in published tables of such counts. `model/convolution.py` skips
    these multiplications in layers in which every output depends on the whole input map. For ResNet-50 with the
    ImageNet stem (the first layers for large images) at 32 pixels, these multiplications are 23 % of the operations.
    """
    total = 0.0
    for layer in model._flatten_layers(include_self=False):
        kernel = getattr(layer, "kernel", None)
        if kernel is None:
            continue
        output = layer.output.shape if hasattr(layer.output, "shape") else layer.output[0].shape
        places = 1
        for axis in output[1:-1]:
            places *= int(axis)
        size = 1
        for axis in kernel.shape:
            size *= int(axis)
        total += 2.0 * places * size
    return total


def count_pair_operations(models: Sequence[tf.keras.Model]) -> float:
    """Return the floating-point operations of one pair in a training step. A pair is two views of one image.

    The backward pass counts as two forward passes.
    """
    return 2 * 3 * sum(count_view_operations(model) for model in models)


def compute_share(pairs_per_second: float, operations: float, device: str | None, precision: str) -> float | None:
    """Return the MFU of a training run, or None if the device's peak rate is not known.

    Args:
        pairs_per_second: the speed of the training.
        operations: the number of floating-point operations of one pair.
        device: the name of the GPU, or None without a GPU.
        precision: the type of the factors in matrix products, such as "bfloat16".
    """
    limit = find_peak_rate(device, precision)
    return None if limit is None else pairs_per_second * operations / limit
