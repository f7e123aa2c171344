"""The encoder's convolution: Keras's layer, except that it is a matrix product on feature maps with very few pixels.

If XLA compiles for a CPU, the gradients are written in a form that XLA's CPU compiler computes fast
(`xla_convolution.py`). `encoder.py` builds the encoder from these layers.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lowlevel_simclr.model.xla_convolution import convolve
from lowlevel_simclr.runtime.devices import has_gpu
from lowlevel_simclr.runtime.xla import is_inside_xla


@tf.keras.utils.register_keras_serializable(package="lowlevel_simclr")
class Convolution(tf.keras.layers.Conv2D):
    """Conv2D over (B, H, W, C). If every output sees the whole map, the layer computes one matrix product.

    A tap is one position of the kernel. On a map of 1x1 pixel, a 3x3 kernel meets the pixel only with its middle tap.
    On 2x2 pixels, 16 of the 36 pairs of output and tap meet a pixel, and the others meet padding. Convolution libraries
    are made for large maps, so they multiply by the padding too. Without AVX-512, oneDNN also computes the gradient of
    such a kernel one image at a time. When such layers were computed as ordinary convolutions, they took half of the
    time of a training step of ResNet-50 with the ImageNet stem (first layers that reduce the map by 4) at 32 pixels
    (`bench.ops.bench_convolution`). The matrix product avoids both costs and computes the same sum.

    Otherwise this layer is identical to Keras's `Conv2D`: it has the same options, the same variables, and the same
    result up to rounding.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
        """Apply the layer without its bias and activation.

        Args:
            inputs: (B, H, W, C) feature map.
            kernel: (kH, kW, C, F) weights.

        Returns:
            (B, H', W', F).
        """
        plain = self.data_format == "channels_last" and self.groups == 1 and tuple(self.dilation_rate) == (1, 1)
        if plain and None not in inputs.shape[1:3]:
            down, right = (
                fills_whole_map(inputs.shape[1 + axis], self.kernel_size[axis], self.strides[axis], self.padding)
                for axis in (0, 1)
            )
            if down is not None and right is not None:
                return _multiply(inputs, kernel, down, right)
            if is_inside_xla() and not has_gpu():
                return convolve(inputs, tf.convert_to_tensor(kernel), tuple(self.strides), self.padding)
        return super().convolution_op(inputs, kernel)


def count_taps(length: int, size: int, stride: int, padding: str) -> dict[int, tuple[int, ...]]:
    """Return, for each pixel along one axis, the tap with which each output of a convolution multiplies this pixel.

    Args:
        length: number of pixels along the axis.
        size: number of taps of the kernel along the axis.
        stride: number of pixels between two outputs.
        padding: "same" or "valid". "same" works as in TensorFlow: if the padding is odd, the end gets the extra pixel.

    Returns:
        For each pixel, one tap number for each output. A number outside 0 .. size - 1 means that the output does not
        see the pixel.

    Examples:
        >>> from lowlevel_simclr.model.convolution import count_taps
        >>> count_taps(length=2, size=3, stride=1, padding="same")  # two pixels, two outputs
        {0: (1, 0), 1: (2, 1)}
    """
    outputs = -(-length // stride) if padding == "same" else (length - size) // stride + 1
    before = max((outputs - 1) * stride + size - length, 0) // 2 if padding == "same" else 0
    return {pixel: tuple(pixel + before - stride * output for output in range(outputs)) for pixel in range(length)}


def fills_whole_map(length: int, size: int, stride: int, padding: str) -> dict[int, tuple[int, ...]] | None:
    """Return the taps of a convolution along one axis if the convolution is a dense layer along it, otherwise None.

    The convolution is a dense layer if each output sees all the pixels that are seen by any output.

    Args:
        length: number of pixels along the axis.
        size: number of taps of the kernel along the axis.
        stride: number of pixels between two outputs.
        padding: "same" or "valid".

    Returns:
        The table of `count_taps` for the pixels that an output sees, or None.

    Examples:
        >>> from lowlevel_simclr.model.convolution import fills_whole_map
        >>> fills_whole_map(length=2, size=1, stride=2, padding="same")  # the one output sees pixel 0
        {0: (0,)}
        >>> fills_whole_map(length=4, size=3, stride=1, padding="same") is None
        True
    """
    table = count_taps(length, size, stride, padding).items()
    met = {pixel: row for pixel, row in table if any(0 <= tap < size for tap in row)}
    return met if all(0 <= tap < size for row in met.values() for tap in row) else None


def _multiply(
    x: tf.Tensor, kernel: Any, down: dict[int, tuple[int, ...]], right: dict[int, tuple[int, ...]]
) -> tf.Tensor:
    """Compute the convolution as one matrix product: the pixels of an image form a row, and the taps form the matrix.

    Args:
        x: (B, H, W, C) feature map.
        kernel: (kH, kW, C, F) weights.
        down: taps along the height, from `fills_whole_map`.
        right: taps along the width, from `fills_whole_map`.

    Returns:
        (B, H', W', F).
    """
    height, width = (len(next(iter(axis.values()))) for axis in (down, right))
    kernel = tf.convert_to_tensor(kernel)
    # The gradient of unstack is one stack. With slices, the gradient would fill a kernel of zeros for each slice.
    grid = [tf.unstack(row) for row in tf.unstack(kernel)]
    matrix = tf.concat(
        [tf.concat([grid[row][column] for row in down[i] for column in right[j]], axis=1) for i in down for j in right],
        axis=0,
    )  # (pixels C, outputs F)
    if (len(down), len(right)) != tuple(x.shape[1:3]):
        # If no output sees some pixels, these pixels are at the end. So one slice takes all the others.
        # The gradient of tf.slice is padding. The gradient of x[...] is an operation of its own, which is slow.
        x = tf.slice(x, [0, 0, 0, 0], [-1, len(down), len(right), -1])
    rows = tf.reshape(x, [-1, len(down) * len(right) * x.shape[3]])
    return tf.reshape(tf.matmul(rows, matrix), [-1, height, width, kernel.shape[3]])
