"""Tests max pooling that is computed as the maximum of strided slices, instead of by TensorFlow's op.

Values and gradients must equal those of TensorFlow's op, also if several pixels of a window share the largest value.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.model import encoder
from lowlevel_simclr.model.max_pooling import MaxPooling, take_max_of_slices

SHAPES = [((3, 3), (2, 2), "valid", 18), ((3, 3), (2, 2), "same", 16), ((3, 3), (2, 2), "same", 17)]
SHAPES += [((2, 3), (3, 1), "same", 8), ((3, 2), (1, 3), "valid", 9), ((2, 2), (2, 2), "valid", 5)]


def maps(side: int, kind: str = "float32") -> tf.Tensor:
    """Return feature maps like those after a ReLU: whole numbers from 0 to 3, of which more than half are 0.

    So in some windows, several pixels share the largest value.
    """
    drawn = np.random.default_rng(side).integers(-3, 4, (2, side, side + 1, 5))
    return tf.cast(np.maximum(drawn, 0), kind)


def with_gradient(pool: object, x: tf.Tensor, jit: bool) -> list[np.ndarray]:
    """Return the pooled maps y, and the gradient of a weighted sum of y. The weights are -3, -2, ..., 3, -3, -2, ..."""

    @tf.function(jit_compile=jit)
    def both(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = pool(x)  # type: ignore[operator]
        weights = tf.reshape(tf.range(tf.size(y)) % 7 - 3, tf.shape(y))
        return y, tape.gradient(y, x, output_gradients=tf.cast(weights, x.dtype))

    return [tf.cast(each, tf.float32).numpy() for each in both(x)]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(("size", "stride", "padding", "side"), SHAPES)
def test_slices_pool_as_tensorflow_does(
    size: tuple[int, int], stride: tuple[int, int], padding: str, side: int, jit: bool
) -> None:
    x = maps(side)
    expected = with_gradient(lambda x: tf.nn.max_pool2d(x, size, stride, padding.upper()), x, False)
    found = with_gradient(lambda x: take_max_of_slices(x, size, stride, padding), x, jit)
    for ours, theirs in zip(found, expected):
        np.testing.assert_array_equal(ours, theirs)


def test_half_precision_keeps_its_type() -> None:
    found = with_gradient(lambda x: take_max_of_slices(x, (3, 3), (2, 2), "same"), maps(8, "bfloat16"), True)
    expected = with_gradient(lambda x: take_max_of_slices(x, (3, 3), (2, 2), "same"), maps(8), False)
    np.testing.assert_array_equal(found[0], expected[0])
    assert take_max_of_slices(maps(8, "bfloat16"), (3, 3), (2, 2), "same").dtype == tf.bfloat16


def ops_of(layer: MaxPooling, jit: bool) -> set[str]:
    compiled = tf.function(layer, jit_compile=jit).get_concrete_function(tf.TensorSpec([2, 8, 8, 3]))
    return {each.type for each in compiled.graph.get_operations()}


def test_the_layer_pools_by_slices_under_xla_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: [])
    assert "MaxPool" in ops_of(MaxPooling(3, 2), jit=True)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: ["a GPU"])
    assert "MaxPool" in ops_of(MaxPooling(3, 2), jit=False)
    assert "MaxPool" not in ops_of(MaxPooling(3, 2), jit=True)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_the_imagenet_stem_pools_by_our_layer(name: str) -> None:
    found = [layer for layer in encoder.build_encoder(name, "imagenet", 32).layers if "pool" in layer.name]
    assert [type(layer) for layer in found if isinstance(layer, tf.keras.layers.MaxPooling2D)] == [MaxPooling]
