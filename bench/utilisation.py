"""Model FLOP utilisation (MFU): the operations that a model computes in a second, as a share of the device's peak.

The peak is the rate in the device's data sheet. Only the operations of convolutions and dense layers are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

# Peak operations a second: dense bfloat16 and float16, and float32 without TF32. Source: NVIDIA's data sheets (SXM).
PEAKS = {
    "H200": {"bfloat16": 989e12, "float16": 989e12, "float32": 67e12},
    "H100": {"bfloat16": 989e12, "float16": 989e12, "float32": 67e12},
    "A100": {"bfloat16": 312e12, "float16": 312e12, "float32": 19.5e12},
}


def find_peak_rate(device: str | None, precision: str) -> float | None:
    """Return the operations a second in the device's data sheet, or None if the device is not in PEAKS."""
    for name, rates in PEAKS.items():
        if device is not None and name in device:
            return rates.get(precision)
    return None


def count_view_operations(model: tf.keras.Model) -> float:
    """Return the multiplications and additions of one view's forward pass in convolutions and dense layers.

    Multiplications with padding are counted too, as in the published tables. `model/convolution.py` skips them in
    layers whose every output depends on the whole input map. They are 23 % of ResNet-50's operations with the ImageNet
    stem at 32 pixels.
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
    """Return the floating-point operations of one pair (two views) in a training step.

    The backward pass counts as two forward passes.
    """
    return 2 * 3 * sum(count_view_operations(model) for model in models)


def compute_share(pairs_per_second: float, operations: float, device: str | None, precision: str) -> float | None:
    """Return the operations a second of a training run as a share of the device's peak (MFU), or None without a peak.

    Args:
        pairs_per_second: the speed of the training.
        operations: the floating-point operations of one pair.
        device: the name of the GPU, or None without a GPU.
        precision: the precision of the products, such as "bfloat16".
    """
    limit = find_peak_rate(device, precision)
    return None if limit is None else pairs_per_second * operations / limit
