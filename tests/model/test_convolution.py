"""Tests this package's convolution layer: it must give the values and gradients of TensorFlow's convolution.

On small feature maps, the layer computes the convolution as one matrix product.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lowlevel_simclr.model import encoder
from lowlevel_simclr.model.convolution import Convolution, fills_whole_map
from lowlevel_simclr.runtime import keras, precision

EPS = float(np.finfo(np.float64).eps)
ROWS, CHANNELS, FILTERS = 3, 2, 4


def operations(layer: tf.keras.layers.Layer, shape: tuple[int | None, ...]) -> list[str]:
    graph = tf.function(layer).get_concrete_function(tf.TensorSpec(shape, tf.float32)).graph
    return [operation.type for operation in graph.get_operations()]


def value_and_gradients(call: Any, x: tf.Tensor, kernel: Any, dy: tf.Tensor) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = call(x)
    return [each.numpy() for each in (y, *tape.gradient(y, (x, kernel), output_gradients=dy))]


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(1, 3),
    st.sampled_from(["same", "valid"]),
    st.integers(0, 2**16),
)
def test_it_is_tensorflows_convolution(
    side: tuple[int, int], size: tuple[int, int], stride: int, padding: str, seed: int
) -> None:
    if padding == "valid" and (size[0] > side[0] or size[1] > side[1]):
        return  # the kernel is larger than the feature map, so there is no output
    precision.set_precision("float64")
    rng = np.random.default_rng(seed)
    layer = Convolution(FILTERS, size, stride, padding=padding, use_bias=False)
    x = tf.constant(rng.normal(size=(ROWS, *side, CHANNELS)))
    shape = layer(x).shape
    layer.set_weights([rng.normal(size=(*size, CHANNELS, FILTERS))])
    kernel = keras.unwrap_variable(layer.kernel)
    dy = tf.constant(rng.normal(size=shape))
    found = value_and_gradients(layer, x, kernel, dy)
    right = value_and_gradients(lambda x: tf.nn.conv2d(x, kernel, stride, padding.upper()), x, kernel, dy)
    # A number in the output or in a gradient is a sum of up to `terms` products of at most 16 x 16 each. TensorFlow
    # adds them in another order.
    terms = max(size[0] * size[1] * max(CHANNELS, FILTERS), ROWS * side[0] * side[1])
    for ours, theirs in zip(found, right):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= terms * EPS * 256


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), st.sampled_from(["same", "valid"]))
def test_a_map_is_whole_where_no_output_misses_a_pixel_that_another_meets(
    length: int, size: int, stride: int, padding: str
) -> None:
    if padding == "valid" and size > length:
        return
    # Find which output uses which pixel. For each pixel, convolve a line in which only this pixel is 1. The kernel has
    # the entries 1, 2, 3 and so on, so an output is the entry that meets the pixel, or 0.
    line = tf.reshape(tf.eye(length, dtype=tf.float64), [length, length, 1])
    taps = tf.reshape(tf.range(1, size + 1, dtype=tf.float64), [size, 1, 1])
    met = tf.nn.conv1d(line, taps, stride, padding.upper()).numpy()[:, :, 0].astype(int)
    seen = {pixel: tuple(row - 1) for pixel, row in enumerate(met) if row.any()}
    whole = all(min(taps) >= 0 for taps in seen.values())
    assert fills_whole_map(length, size, stride, padding) == (seen if whole else None)


@pytest.mark.parametrize(
    ("side", "size", "stride", "is_product"),
    [(1, 1, 1, True), (1, 3, 1, True), (2, 3, 1, True), (2, 1, 2, True), (2, 1, 1, False), (3, 3, 1, False)],
)
def test_only_whole_maps_become_products(side: int, size: int, stride: int, is_product: bool) -> None:
    layer = Convolution(FILTERS, size, stride, padding="same")
    found = operations(layer, (None, side, side, CHANNELS))
    assert ("MatMul" in found, "Conv2D" in found) == (is_product, not is_product)


def test_a_map_of_unknown_size_is_convolved() -> None:
    assert "Conv2D" in operations(Convolution(FILTERS, 3, padding="same"), (None, None, None, CHANNELS))


@pytest.mark.parametrize("options", [{"groups": 2}, {"dilation_rate": 2}], ids=lambda options: next(iter(options)))
def test_options_that_a_product_does_not_have_stay_keras(options: dict[str, int]) -> None:
    assert "MatMul" not in operations(Convolution(FILTERS, 3, padding="same", **options), (None, 1, 1, CHANNELS))


def test_bias_and_activation_are_keras_own() -> None:
    x = np.random.default_rng(0).normal(size=(ROWS, 1, 1, CHANNELS)).astype(np.float32)
    ours = Convolution(FILTERS, 3, padding="same", activation="relu", bias_initializer="ones")
    stock = tf.keras.layers.Conv2D(FILTERS, 3, padding="same", activation="relu", bias_initializer="ones")
    ours(x), stock(x)
    stock.set_weights(ours.get_weights())
    np.testing.assert_allclose(ours(x), stock(x), rtol=1e-5, atol=1e-6)  # outputs are sums of two products and a bias


def test_half_precision_computes_in_half_and_keeps_float32() -> None:
    precision.set_precision("bfloat16")
    layer = Convolution(FILTERS, 3, padding="same")
    y = layer(tf.ones((ROWS, 2, 2, CHANNELS)))
    assert y.dtype == tf.bfloat16
    assert tf.as_dtype(layer.kernel.dtype) == tf.float32


def test_resnet50_at_32_pixels_convolves_no_map_that_is_whole() -> None:
    model = encoder.build_encoder("resnet50", "imagenet", 32)
    found = operations(lambda x: model(x, training=True), (2, 32, 32, 3))
    # Counted by hand in Keras's ResNet-50: 16 convolutions become matrix products. In stage 4 (maps of 2x2 pixels)
    # these are the six with 3x3 kernels. In stage 5 (maps of 1x1 pixel) these are the three with 3x3 kernels, the two
    # with 1x1 kernels and a stride, and the five with 1x1 kernels that follow.
    assert (found.count("MatMul"), found.count("Conv2D")) == (16, 37)
