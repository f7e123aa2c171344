"""Tests the encoders, which are ResNets: sizes, numbers of parameters, half precision, seeds, loading of weights."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.model import encoder, stock_layers
from lowlevel_simclr.model.batch_norm import FusedBatchNorm
from lowlevel_simclr.model.errors import ModelError
from lowlevel_simclr.runtime import keras
from lowlevel_simclr.runtime.precision import set_precision

EPS = float(np.finfo(np.float32).eps)
# (name, stem) -> dimension of the output h, side of the last feature map for images of 32x32 pixels, number of
# trainable parameters. The stem is the first layers: "cifar" is for small images, "imagenet" for large ones. The
# parameters were counted by hand from the tables of He et al. 2016. ResNet-18, -34 and -50 with the ImageNet stem have
# as many parameters as torchvision's networks without their classifiers.
ENCODERS = {
    ("resnet8x4", "cifar"): (256, 8, 1_183_296),
    ("resnet8x4", "half"): (256, 4, 1_183_296),
    ("resnet20", "cifar"): (64, 8, 269_072),
    ("resnet20", "half"): (64, 4, 269_072),
    ("resnet20", "imagenet"): (64, 2, 270_992),
    ("resnet18", "cifar"): (512, 4, 11_168_832),
    ("resnet18", "imagenet"): (512, 1, 11_176_512),
    ("resnet34", "cifar"): (512, 4, 21_276_992),
    ("resnet34", "imagenet"): (512, 1, 21_284_672),
    ("resnet50", "cifar"): (2048, 4, 23_500_352),
    ("resnet50", "half"): (2048, 2, 23_500_352),
    ("resnet50", "imagenet"): (2048, 1, 23_508_032),
}


@functools.cache  # building a ResNet-50 takes seconds
def built(name: str, stem: str) -> tf.keras.Model:
    return encoder.build_encoder(name, stem, 32)


def views(size: int, count: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, size, size, 3)).astype(np.float32)


def test_keras_set_to_channels_first_is_refused_by_name() -> None:
    """Test that Keras's setting channels_first is refused, because the encoder would use the wrong axis as channels."""
    before = tf.keras.backend.image_data_format()
    tf.keras.backend.set_image_data_format("channels_first")
    try:
        with pytest.raises(ModelError, match="Keras is set to channels_first, .* Set image_data_format"):
            encoder.build_encoder("resnet20", "cifar", 8)
    finally:
        tf.keras.backend.set_image_data_format(before)
    encoder.refuse_choice("resnet20", "cifar", 8, 3)


@pytest.mark.parametrize(("name", "stem"), ENCODERS)
def test_sizes_and_parameter_counts(name: str, stem: str) -> None:
    model = built(name, stem)
    dim, last_map, parameters = ENCODERS[name, stem]
    assert tuple(model.output_shape) == (None, dim)
    assert tuple(model.layers[-1].input.shape)[1:3] == (last_map, last_map)
    assert keras.count_trainable(model) == parameters


@pytest.mark.parametrize(("name", "stem"), [key for key in ENCODERS if key[0] in ("resnet20", "resnet50")])
def test_h_is_the_pooled_output(name: str, stem: str) -> None:
    h = built(name, stem)(views(32), training=False).numpy()
    assert h.shape == (2, ENCODERS[name, stem][0]) and np.all(np.isfinite(h)) and np.all(h >= 0) and h.std() > 0


@pytest.mark.parametrize(("name", "stem"), ENCODERS)
def test_every_batch_norm_is_the_fused_one(name: str, stem: str) -> None:
    layers = built(name, stem).layers
    stock = [layer.name for layer in layers if isinstance(layer, tf.keras.layers.BatchNormalization)]
    stock = [called for called in stock if not isinstance(built(name, stem).get_layer(called), FusedBatchNorm)]
    assert stock == [] and sum(isinstance(layer, FusedBatchNorm) for layer in layers) >= 7


def test_smaller_views_and_other_channels() -> None:
    model = encoder.build_encoder("resnet20", "cifar", 20, channels=1)
    assert model(views(20)[..., :1], training=False).shape == (2, 64)


# Half precision


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_takes_a_step(precision: str) -> None:
    set_precision(precision)
    model = encoder.build_encoder("resnet20", "cifar", 16)
    moving = [variable for variable in model.non_trainable_variables if "moving_mean" in compat_name(variable)]
    x = tf.cast(views(16, count=4), precision)

    @tf.function
    def step() -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            h = model(x, training=True)
            loss = tf.reduce_mean(tf.square(tf.cast(h, tf.float32)))
        return h, tape.gradient(loss, model.trainable_variables)

    h, gradients = step()
    assert h.dtype == precision and {tf.as_dtype(variable.dtype) for variable in model.variables} == {tf.float32}
    assert all(gradient.dtype == tf.float32 and np.all(np.isfinite(gradient)) for gradient in gradients)
    assert moving and all(np.any(variable.numpy() != 0) for variable in moving)


def compat_name(variable: Any) -> str:
    return str(getattr(variable, "path", variable.name))


# Weights


def test_random_weights_are_a_function_of_the_seed() -> None:
    first = encoder.build_encoder("resnet20", "cifar", 16, seed=3).get_weights()
    tf.keras.layers.Dense(3).build((None, 4))  # building another layer must not change the weights
    again = encoder.build_encoder("resnet20", "cifar", 16, seed=3).get_weights()
    other = encoder.build_encoder("resnet20", "cifar", 16, seed=4).get_weights()
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    kernels = [(one, two) for one, two in zip(first, other, strict=True) if one.ndim > 1]
    assert not any(np.array_equal(one, two) for one, two in kernels)
    same_shape = [one for one, _ in kernels if one.shape == (3, 3, 16, 16)]
    assert len({one.tobytes() for one in same_shape}) == len(same_shape) == 6  # equal shapes, different weights


def test_weights_come_back_from_a_file(tmp_path: Path) -> None:
    file = str(tmp_path / "f.weights.h5")
    saved = encoder.build_encoder("resnet20", "cifar", 16, seed=3)
    stock_layers.build_stock_twin(saved).save_weights(file)  # a file as a user of plain Keras might save it
    loaded = encoder.build_encoder("resnet20", "cifar", 16, weights=file, seed=4)
    assert all(np.array_equal(one, two) for one, two in zip(saved.get_weights(), loaded.get_weights(), strict=True))
    with pytest.raises(ValueError, match="do not fit resnet20"):
        encoder.build_encoder("resnet20", "imagenet", 16, weights=file)


# Encoders that are refused


@pytest.mark.parametrize(
    ("name", "stem", "weights", "text"),
    [
        ("resnet99", "cifar", "random", "resnet99"),
        ("resnet20", "wide", "random", "wide"),
        ("resnet20", "imagenet", "imagenet", "ImageNet weights are for resnet50"),
        ("resnet20", "cifar", "no/such/file.weights.h5", "no/such/file"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, stem: str, weights: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        encoder.build_encoder(name, stem, 32, weights=weights)


@pytest.mark.parametrize(("name", "stem"), [("resnet20", "cifar"), ("resnet18", "imagenet"), ("resnet50", "cifar")])
def test_an_encoder_of_another_size_has_the_same_variables_in_the_same_order(name: str, stem: str) -> None:
    f = built(name, stem)
    other = encoder.give_other_size(f, 16)
    assert [id(each) for each in other.trainable_variables] == [id(each) for each in f.trainable_variables]
    assert [id(each) for each in other.weights] == [id(each) for each in f.weights]
    assert other.input_shape == (None, 16, 16, 3) and encoder.give_other_size(f, 32) is f


def test_an_encoder_of_another_size_gives_the_h_of_one_that_was_built_for_it() -> None:
    f, small = encoder.build_encoder("resnet20", "cifar", 32, seed=3), encoder.build_encoder("resnet20", "cifar", 16)
    small.set_weights(f.get_weights())
    x = views(16)
    np.testing.assert_array_equal(encoder.give_other_size(f, 16)(x).numpy(), small(x).numpy())
