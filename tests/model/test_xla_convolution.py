"""Tests a convolution that is written for XLA on a CPU: it must give the values and gradients of TensorFlow's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lowlevel_simclr.model.convolution import Convolution
from lowlevel_simclr.model.xla_convolution import convolve
from lowlevel_simclr.runtime import precision

EPS = float(np.finfo(np.float64).eps)
ROWS, CHANNELS, FILTERS = 3, 2, 4


def value_and_gradients(call: Callable[..., tf.Tensor], x: tf.Tensor, kernel: tf.Tensor) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        y = call(x, kernel)
        loss = tf.reduce_sum(y * tf.cos(tf.range(tf.size(y), dtype=y.dtype) % 7).numpy().reshape(y.shape))
    return [each.numpy() for each in (y, *tape.gradient(loss, (x, kernel)))]


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from(["same", "valid"]),
    st.integers(0, 2**16),
)
def test_it_is_tensorflows_convolution(
    side: tuple[int, int], taps: tuple[int, int], strides: tuple[int, int], padding: str, seed: int
) -> None:
    if padding == "valid" and (taps[0] > side[0] or taps[1] > side[1]):
        return  # the kernel is larger than the feature map, so there is no output
    if strides[0] != strides[1]:
        return  # TensorFlow has no CPU kernel for the gradient with two different strides
    rng = np.random.default_rng(seed)
    x = tf.constant(rng.normal(size=(ROWS, *side, CHANNELS)))
    kernel = tf.constant(rng.normal(size=(*taps, CHANNELS, FILTERS)))
    found = value_and_gradients(lambda x, kernel: convolve(x, kernel, strides, padding), x, kernel)
    right = value_and_gradients(lambda x, kernel: tf.nn.conv2d(x, kernel, strides, padding.upper()), x, kernel)
    # A number in the output or in a gradient is a sum of up to `terms` products of at most 16 x 16 each. TensorFlow
    # adds them in another order.
    terms = max(taps[0] * taps[1] * max(CHANNELS, FILTERS), ROWS * side[0] * side[1])
    for ours, theirs in zip(found, right):
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= terms * EPS * 256


@pytest.mark.parametrize("jit_compile", [True, False])
def test_the_layer_uses_it_inside_xla_only(jit_compile: bool) -> None:
    precision.set_precision("float32")
    layer = Convolution(FILTERS, 3, 2, padding="same", use_bias=False)
    layer.build((ROWS, 8, 8, CHANNELS))

    @tf.function(jit_compile=jit_compile)
    def differentiate(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x))
        return tape.gradient(loss, x)

    graph = differentiate.get_concrete_function(tf.TensorSpec((ROWS, 8, 8, CHANNELS))).graph
    kinds = {each["op"] if isinstance(each, dict) else each.type for each in graph.get_operations()}
    assert ("Conv2DBackpropInput" in kinds) is not jit_compile
