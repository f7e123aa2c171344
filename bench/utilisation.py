"""Model floating-point utilisation: what a model's products need against what the device's data sheet promises."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from typing import Any

# Dense bfloat16/float16 and tf32-free float32 operations a second, from NVIDIA's data sheets (SXM parts).
PEAKS = {
    "H200": {"bfloat16": 989e12, "float16": 989e12, "float32": 67e12},
    "H100": {"bfloat16": 989e12, "float16": 989e12, "float32": 67e12},
    "A100": {"bfloat16": 312e12, "float16": 312e12, "float32": 19.5e12},
}


@functools.cache
def gpu_name() -> str | None:
    """The first GPU's name, from its driver; None where there is none, or CUDA_VISIBLE_DEVICES hides them all."""
    program = shutil.which("nvidia-smi")
    if program is None or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else None


def peak(device: str | None, precision: str) -> float | None:
    """Operations a second that the data sheet promises; None for a device that is not listed."""
    for name, rates in PEAKS.items():
        if device is not None and name in device:
            return rates.get(precision)
    return None


def operations_of_view(model: Any) -> float:
    """Multiplications and additions of one view's forward pass: convolutions and dense layers of a Keras model.

    Products with padding are counted, as in the published tables, though `convolution.py` makes none on whole maps:
    of ResNet-50 with the ImageNet stem at 32 pixels they are 23 %.
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


def operations_of_pair(models: list[Any]) -> float:
    """One training step's operations for a pair: two views, forward once and backward twice as much."""
    return 2 * 3 * sum(operations_of_view(model) for model in models)


def share(pairs_per_second: float, operations: float, device: str | None, precision: str) -> float | None:
    """MFU, or None where the device's peak is not known."""
    limit = peak(device, precision)
    return None if limit is None else pairs_per_second * operations / limit
