"""Tests this package's loss, and its layer that makes random views of images, in a user's own Keras model."""

from __future__ import annotations

import math
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import lowlevel_simclr as ls
from lowlevel_simclr import reference, stock
from lowlevel_simclr.api import implementation
from lowlevel_simclr.data.shapes import draw_shapes
from lowlevel_simclr.data.transform import InferenceTransform, PixelScaling
from lowlevel_simclr.ops import _library, _route
from lowlevel_simclr.runtime import platform_ops
from lowlevel_simclr.runtime.keras import find_keras_generation, unwrap_variable

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 12, 10, 3), np.uint8)
GENTLE = ls.ViewRecipe(crop_area=(0.5, 1.0), jitter_probability=0.0, grey_probability=0.0)


def z_of(rows: int, width: int = 5) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, width)).astype(np.float32)


def build_model(batch_size: int | None = None) -> tf.keras.Model:
    """Return a model that maps images (N, 20, 20, 3) to z (2N, 16): views, a small encoder, a projection head."""
    images = tf.keras.Input((20, 20, 3), batch_size=batch_size, dtype="uint8")
    x = ls.SimCLRViews(16, GENTLE, seed=1)(images)
    x = tf.keras.layers.Conv2D(16, 3, 2, activation="relu")(x)
    x = tf.keras.layers.Conv2D(32, 3, 2, activation="relu")(x)
    x = tf.keras.layers.GlobalAveragePooling2D()(x)
    return tf.keras.Model(images, tf.keras.layers.Dense(16)(x))


@pytest.mark.parametrize("ops", ["auto", "native", "stock"])
def test_the_loss_is_the_references(ops: str) -> None:
    z = z_of(8)
    expected = reference.nt_xent(z.astype(np.float64), 0.3)
    np.testing.assert_allclose(ls.nt_xent(z, 0.3, ops=ops), expected, rtol=1e-5)
    each = ls.NTXent(0.3, ops=ops, reduction="none")(np.zeros(8), z)
    np.testing.assert_allclose(each, expected, rtol=1e-5)
    np.testing.assert_allclose(float(ls.NTXent(0.3)(np.zeros(8), z)), expected.mean(), rtol=1e-5)


def test_the_loss_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="temperature is -1"):
        ls.NTXent(-1)
    with pytest.raises(ValueError, match="2N"):
        ls.nt_xent(z_of(3), 0.5)
    with pytest.raises(ls.ConfigError, match="ops is 'cuda'"):
        ls.nt_xent(z_of(4), 0.5, ops="cuda")
    assert ls.NTXent.from_config(ls.NTXent(0.7, ops="stock").get_config()).temperature == 0.7


@pytest.mark.parametrize(
    ("steady", "jit_compile"),
    [
        pytest.param(False, False, id="unknown batch-graph"),
        pytest.param(False, True, id="unknown batch-xla"),
        pytest.param(True, False, id="known batch-graph", marks=pytest.mark.slow),
        pytest.param(True, True, id="known batch-xla"),
    ],
)
def test_a_model_of_ones_own_learns(jit_compile: bool, steady: bool) -> None:
    """Train. The loss must fall clearly below log(2N - 1), which is the loss if all similarities are equal."""
    tf.keras.utils.set_random_seed(0)
    images = draw_shapes(64, seed=3)[0][:, 6:26, 6:26]
    stream = tf.data.Dataset.from_tensor_slices((images, np.zeros(64))).repeat(20).batch(32, drop_remainder=steady)
    model = build_model(32 if steady else None)
    model.compile(tf.keras.optimizers.Adam(5e-3), loss=ls.NTXent(0.2), jit_compile=jit_compile)
    losses = model.fit(stream, epochs=2, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < 0.75 * math.log(2 * 32 - 1)
    assert int(unwrap_variable(model.layers[1].calls)) == 2 * 40
    assert model.predict(images, verbose=0).shape == (64, 16)
    assert int(unwrap_variable(model.layers[1].calls)) == 2 * 40


def test_no_two_calls_draw_the_same_and_the_seed_repeats_them() -> None:
    one, other, third = ls.SimCLRViews(8, seed=1), ls.SimCLRViews(8, seed=1), ls.SimCLRViews(8, seed=2)
    first, second = [one(IMAGES, training=True).numpy() for _ in range(2)]
    assert first.shape == (12, 8, 8, 3) and not np.array_equal(first[:6], first[6:])
    assert not np.array_equal(first, second)
    assert [np.array_equal(other(IMAGES, training=True), made) for made in (first, second)] == [True, True]
    assert not np.array_equal(third(IMAGES, training=True), first)
    np.testing.assert_array_equal(ls.make_views(IMAGES, seed=1, size=8), first)


def test_inference_is_the_test_transform_and_is_not_counted() -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.2, 0.3)
    layer = ls.SimCLRViews(8, mean=mean, std=std)
    expected = InferenceTransform(8, PixelScaling(mean, std))(IMAGES)
    np.testing.assert_array_equal(layer(IMAGES, training=False), expected)
    assert int(unwrap_variable(layer.calls)) == 0
    assert layer(IMAGES).shape[0] == 12  # without the argument `training`, the layer makes random views


def test_native_and_stock_views_are_the_same() -> None:
    native, other = (ls.make_views(IMAGES, seed=4, size=8, ops=ops) for ops in ("native", "stock"))
    np.testing.assert_allclose(native, other, atol=1e-4)


def test_floats_up_to_255_are_the_same_pixels() -> None:
    np.testing.assert_allclose(
        ls.make_views(IMAGES.astype(np.float32), seed=4, size=8), ls.make_views(IMAGES, seed=4, size=8), atol=1e-5
    )
    with pytest.raises(ValueError, match="floats of at most 1"):
        ls.make_views(IMAGES / 255.0, size=8)


@pytest.mark.parametrize("channels", [1, 4])
def test_images_without_colours_are_taken(channels: int) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 9, 9, channels), np.uint8)
    assert ls.make_views(images, size=8).shape == (6, 8, 8, channels)


def list_framed() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return six images of different sizes with black padding, the same images with white padding, and the sizes."""
    sizes = np.array([[12, 10], [12, 3], [4, 10], [1, 1], [7, 7], [9, 5]], np.int32)
    inside = (np.arange(12)[:, None] < sizes[:, 0, None, None]) & (np.arange(10) < sizes[:, 1, None, None])
    black, white = (np.where(inside[..., None], IMAGES, padding).astype(np.uint8) for padding in (0, 255))
    return black, white, sizes


@pytest.mark.parametrize("ops", ["native", "stock"])
def test_views_of_images_of_different_sizes_show_no_padding(ops: str) -> None:
    black, white, sizes = list_framed()
    made = [ls.make_views(images, GENTLE, size=8, ops=ops, sizes=sizes).numpy() for images in (black, white)]
    np.testing.assert_array_equal(*made)
    assert not np.array_equal(made[0], ls.make_views(black, GENTLE, size=8, ops=ops))
    with pytest.raises(ValueError, match=r"sizes\[2\] is 13 x 1 pixels"):
        ls.make_views(black, size=8, ops=ops, sizes=[[1, 1], [1, 1], [13, 1], [1, 1], [1, 1], [1, 1]])


@pytest.mark.parametrize("training", [False, True])
def test_the_layer_takes_images_of_different_sizes(training: bool) -> None:
    black, white, sizes = list_framed()
    made = [ls.SimCLRViews(8, GENTLE, seed=3)(images, training=training, sizes=sizes) for images in (black, white)]
    np.testing.assert_array_equal(*made)
    wrong = np.where(sizes == 3, 11, sizes)
    with pytest.raises(ValueError, match=r"sizes\[1\] is 12 x 11 pixels"):
        ls.SimCLRViews(8, GENTLE)(black, training=training, sizes=wrong)
    whole = np.tile([[12, 10]], (6, 1))
    layer, same = (ls.SimCLRViews(8, GENTLE, seed=3) for _ in range(2))
    np.testing.assert_allclose(
        layer(IMAGES, training=training, sizes=whole), same(IMAGES, training=training), atol=1e-6
    )


def test_a_model_takes_sizes_beside_its_images() -> None:
    black, white, sizes = list_framed()
    inputs = tf.keras.Input((12, 10, 3), dtype="uint8"), tf.keras.Input((2,), dtype="int32")
    model = tf.keras.Model(inputs, ls.SimCLRViews(8, GENTLE, seed=3)(inputs[0], sizes=inputs[1]))
    assert model([black, sizes], training=True).shape == (12, 8, 8, 3)
    np.testing.assert_array_equal(model.predict([black, sizes], verbose=0), model.predict([white, sizes], verbose=0))


def test_an_unknown_field_of_a_recipe_is_refused() -> None:
    with pytest.raises(ls.ConfigError, match="Did you mean crop_area"):
        ls.SimCLRViews(8, {"crop_aera": (0.1, 1.0)})
    with pytest.raises(ls.ConfigError, match="--crop-area is"):
        ls.make_views(IMAGES, {"crop_area": (0.1, 2.0)})
    assert ls.SimCLRViews(8, {"crop_area": (0.5, 1)}).recipe == ls.ViewRecipe(crop_area=(0.5, 1.0))


def test_tf_data_gets_new_views_in_every_epoch() -> None:
    layer = ls.SimCLRViews(8, seed=1)
    batches = tf.data.Dataset.from_tensor_slices(IMAGES).batch(3).map(layer)
    epochs = [[made.numpy() for made in batches] for _ in range(2)]
    made = [batch.tobytes() for epoch in epochs for batch in epoch]
    assert len(made) == len(set(made)) == 4 and epochs[0][0].shape == (6, 8, 8, 3)
    assert int(unwrap_variable(layer.calls)) == 4


def test_a_saved_model_goes_on_counting(tmp_path: Path) -> None:
    model = build_model()
    model.compile(loss=ls.NTXent(0.2))
    images = np.zeros((4, 20, 20, 3), np.uint8)
    model.fit(images, np.zeros(4), verbose=0)
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    assert int(unwrap_variable(again.layers[1].calls)) == 1
    assert again.layers[1].seed == 1
    assert again.layers[1].get_config() == model.layers[1].get_config() and again.loss.temperature == 0.2


def test_a_direct_call_trains_no_batch_norm_behind_the_views() -> None:
    norm = tf.keras.layers.BatchNormalization()
    images = tf.keras.Input((12, 10, 3), dtype="uint8")
    model = tf.keras.Model(images, norm(ls.SimCLRViews(8)(images)))
    assert model(IMAGES).shape[0] == 12
    np.testing.assert_array_equal(norm.moving_mean, np.zeros(3))


@pytest.mark.skipif(find_keras_generation() == 2, reason="Keras 2 computes no loss without targets")
def test_no_targets_are_needed() -> None:
    model = build_model()
    model.compile(loss=ls.NTXent(0.2))
    history = model.fit(np.zeros((4, 20, 20, 3), np.uint8), verbose=0).history
    assert np.isfinite(history["loss"]).all() and history["loss"][0] > 0


def test_half_precision_makes_half_views() -> None:
    assert ls.SimCLRViews(8, dtype="mixed_bfloat16")(IMAGES).dtype == tf.bfloat16


def test_stock_ops_stand_in_where_a_gpu_s_xla_cannot_call_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: ["a GPU"])
    build = _library.read_build_information()
    monkeypatch.setattr(_library, "read_build_information", lambda *_: {**build, "cuda": ["sm_90"]})
    z: Any = tf.zeros([4, 2])
    monkeypatch.setattr(_route, "find_route_problem", lambda: None)
    assert implementation.choose_ops("auto", z) is not stock
    monkeypatch.setattr(_route, "find_route_problem", lambda: "The XLA FFI is too old.")
    assert implementation.choose_ops("auto", z) is stock


def test_stock_ops_stand_in_where_the_platform_has_no_library_and_not_where_it_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    z: Any = tf.constant(z_of(4))
    assert implementation.choose_ops("auto", z) is not stock
    broken = tmp_path / "_native.so"
    monkeypatch.setattr(platform_ops, "LIBRARY", broken)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert implementation.choose_ops("auto", z) is stock
    broken.write_bytes(b"")
    broken.with_suffix(".json").write_text('{"abi": 0}')
    monkeypatch.setattr(_library, "load_library", lambda: _library.load_and_check(broken))
    with pytest.raises(ls.NativeLibraryError, match="ABI 0"):
        ls.nt_xent(z, 0.5)
