"""The encoder's convolution: Keras's layer, and a matrix product where a feature map is down to very few pixels.

Not here: the order of layers (`encoder.py`).
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


@tf.keras.utils.register_keras_serializable(package="lowlevel_simclr")
class Convolution(tf.keras.layers.Conv2D):
    """Conv2D over (B, H, W, C), as one matrix product where every output sees the whole map.

    A 3x3 kernel on a map of 1x1 pixel meets it with its middle tap alone, and on 2x2 pixels with 16 of 36; the other
    taps meet padding. Libraries of convolutions are made for large maps: they multiply by the padding, and oneDNN
    without AVX-512 takes the filter's gradient image by image there, which was half of a step of ResNet-50 with the
    ImageNet stem at 32 pixels (`bench.ops.bench_convolution`). The product has neither, and is the same sum otherwise.

    This is Keras's layer else: its options, its variables, its result to rounding.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
        """The layer without bias and activation: (B, H, W, C) and (kH, kW, C, F) -> (B, H', W', F)."""
        plain = self.data_format == "channels_last" and self.groups == 1 and tuple(self.dilation_rate) == (1, 1)
        if plain and None not in inputs.shape[1:3]:
            down, right = (
                fills_whole_map(inputs.shape[1 + axis], self.kernel_size[axis], self.strides[axis], self.padding)
                for axis in (0, 1)
            )
            if down is not None and right is not None:
                return _multiply(inputs, kernel, down, right)
        return super().convolution_op(inputs, kernel)


def count_taps(length: int, size: int, stride: int, padding: str) -> dict[int, tuple[int, ...]]:
    """The tap by which each output of a convolution along one axis would meet each pixel.

    Args:
        length: pixels of the axis.
        size: taps of the kernel; outside 0 .. size - 1 there is no tap, and the output does not see the pixel.
        stride: pixels between two outputs.
        padding: same (TensorFlow's: the odd pixel goes behind) or valid.
    """
    outputs = -(-length // stride) if padding == "same" else (length - size) // stride + 1
    before = max((outputs - 1) * stride + size - length, 0) // 2 if padding == "same" else 0
    return {pixel: tuple(pixel + before - stride * output for output in range(outputs)) for pixel in range(length)}


def fills_whole_map(length: int, size: int, stride: int, padding: str) -> dict[int, tuple[int, ...]] | None:
    """How a convolution along one axis is a dense layer, if it is: `taps` of the pixels that some output meets.

    None where an output misses one of them. Arguments as `taps`.
    """
    table = count_taps(length, size, stride, padding).items()
    met = {pixel: row for pixel, row in table if any(0 <= tap < size for tap in row)}
    return met if all(0 <= tap < size for row in met.values() for tap in row) else None


def _multiply(
    x: tf.Tensor, kernel: Any, down: dict[int, tuple[int, ...]], right: dict[int, tuple[int, ...]]
) -> tf.Tensor:
    """The map's met pixels in one row, by the matrix of the taps between them and the outputs."""
    height, width = (len(next(iter(axis.values()))) for axis in (down, right))
    kernel = tf.convert_to_tensor(kernel)
    # Unstacked, because the gradient of that is one stack; a slice's would be a kernel of zeros for each slice.
    grid = [tf.unstack(row) for row in tf.unstack(kernel)]
    matrix = tf.concat(
        [tf.concat([grid[row][column] for row in down[i] for column in right[j]], axis=1) for i in down for j in right],
        axis=0,
    )  # (pixels C, outputs F)
    if (len(down), len(right)) != tuple(x.shape[1:3]):
        # Windows overlap where there are several, and the first starts at pixel 0. Not by brackets, whose gradient is
        # an operation of its own and slow, but by a slice, whose gradient is padding.
        x = tf.slice(x, [0, 0, 0, 0], [-1, len(down), len(right), -1])
    rows = tf.reshape(x, [-1, len(down) * len(right) * x.shape[3]])
    return tf.reshape(tf.matmul(rows, matrix), [-1, height, width, kernel.shape[3]])
