"""A convolution whose gradients XLA's CPU compiler computes fast, also inside a loop.

XLA's CPU compiler calls a fast library for a convolution whose operands have the usual order of axes. The compiler
brings other convolutions into that order, but only outside of loops. The gradients of TensorFlow's convolution have
another order. So inside a loop, XLA computes these gradients without the library, one number at a time, and a training
step takes 12 times as long. This module writes the gradients as convolutions in the usual order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

Gradients = tuple[tf.Tensor, tf.Tensor]


class Axis(NamedTuple):
    """The sizes of a convolution along one axis.

    Attributes:
        length: pixels of the input.
        taps: taps of the kernel. A tap is one position of the kernel.
        stride: pixels between two outputs.
        outputs: pixels of the output.
        before: pixels of padding before the input.
    """

    length: int
    taps: int
    stride: int
    outputs: int
    before: int

    @property
    def reach(self) -> int:
        """The distance from the first output to the last one, in pixels of the input, plus one."""
        return (self.outputs - 1) * self.stride + 1


def make_axis(length: int, taps: int, stride: int, padding: str) -> Axis:
    """Return the sizes of a convolution along one axis.

    Args:
        length: pixels of the input.
        taps: taps of the kernel.
        stride: pixels between two outputs.
        padding: "same" (as TensorFlow does it: the odd pixel goes at the end) or "valid".

    Example:
        >>> make_axis(length=8, taps=3, stride=2, padding="same")
        Axis(length=8, taps=3, stride=2, outputs=4, before=0)
    """
    if padding == "valid":
        return Axis(length, taps, stride, (length - taps) // stride + 1, 0)
    outputs = -(-length // stride)
    return Axis(length, taps, stride, outputs, max((outputs - 1) * stride + taps - length, 0) // 2)


def convolve(x: tf.Tensor, kernel: tf.Tensor, strides: tuple[int, int], padding: str) -> tf.Tensor:
    """Return `tf.nn.conv2d(x, kernel, strides, padding)`, with gradients in the usual order of axes.

    Args:
        x: (B, H, W, C) feature map, H and W known.
        kernel: (kH, kW, C, F) weights.
        strides: pixels between two outputs, along the height and the width.
        padding: "same" or "valid".

    Returns:
        (B, H', W', F).
    """
    down, right = (make_axis(x.shape[1 + i], kernel.shape[i], strides[i], padding) for i in (0, 1))

    @tf.custom_gradient
    def run(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], Gradients]]:
        def differentiate(dy: tf.Tensor) -> Gradients:
            return _differentiate_input(dy, kernel, down, right), _differentiate_kernel(x, dy, down, right)

        return tf.nn.conv2d(x, kernel, strides=strides, padding=padding.upper()), differentiate

    return run(x, kernel)


def _differentiate_kernel(x: tf.Tensor, dy: tf.Tensor, down: Axis, right: Axis) -> tf.Tensor:
    """Return the gradient of the kernel (kH, kW, C, F): x convolved with dy, summed over the images.

    The channels of x take the place of the images, and the images take the place of the channels. The strides become
    dilations.
    """
    pads = []
    x = tf.transpose(x, [3, 1, 2, 0])  # (C, H, W, B)
    for place, axis in enumerate((down, right)):
        after = axis.taps - 1 + axis.reach - axis.length - axis.before
        if after < 0:  # no output sees the last pixels
            x = tf.slice(x, [0, 0, 0, 0], [-1 if each != place + 1 else axis.length + after for each in range(4)])
        pads.append([axis.before, max(after, 0)])
    dy = tf.transpose(dy, [1, 2, 0, 3])  # (H', W', B, F)
    strides = [down.stride, right.stride]
    found = tf.nn.conv2d(x, dy, strides=1, dilations=strides, padding=[[0, 0], *pads, [0, 0]])  # (C, kH, kW, F)
    return tf.transpose(found, [1, 2, 0, 3])


def _differentiate_input(dy: tf.Tensor, kernel: tf.Tensor, down: Axis, right: Axis) -> tf.Tensor:
    """Return the gradient of the input (B, H, W, C): dy, with zeros between its pixels, convolved with the kernel."""
    kernel = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])  # (kH, kW, F, C)
    if (down.stride, right.stride) != (1, 1):
        dy = _spread(dy, down, right)
    pads = []
    for axis in (down, right):
        before = axis.taps - 1 - axis.before
        pads.append([before, axis.length + axis.taps - 1 - axis.reach - before])
    return tf.nn.conv2d(dy, kernel, strides=1, padding=[[0, 0], *pads, [0, 0]])


def _spread(dy: tf.Tensor, down: Axis, right: Axis) -> tf.Tensor:
    """Return dy (B, H', W', F) with stride - 1 zeros between its pixels."""
    rows, channels = tf.shape(dy)[0], dy.shape[3]
    cells = tf.reshape(dy, [rows, down.outputs, 1, right.outputs, 1, channels])
    zeros = [[0, 0], [0, 0], [0, down.stride - 1], [0, 0], [0, right.stride - 1], [0, 0]]
    spread = [rows, down.outputs * down.stride, right.outputs * right.stride, channels]
    return tf.slice(tf.reshape(tf.pad(cells, zeros), spread), [0, 0, 0, 0], [-1, down.reach, right.reach, -1])
