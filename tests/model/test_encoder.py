"""The encoders: sizes, parameter counts, the fused BatchNorm against Keras's own, precisions, seeds, weights."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.config.settings import CAFFE
from lowlevel_simclr.model import encoder, stock_layers
from lowlevel_simclr.model.batch_norm import FusedBatchNorm
from lowlevel_simclr.runtime import keras
from lowlevel_simclr.runtime.precision import choose_fast_precision, has_bfloat16, set_precision

EPS = float(np.finfo(np.float32).eps)
# Name, stem -> dimension of h, pixels a side of the last feature map for views of 32, trainable parameters.
# The last by hand from the tables of He et al. 2016; ResNet-18, -34 and -50 with the ImageNet stem have the counts that
# torchvision gives, less its classifiers.
ENCODERS = {
    ("resnet20", "cifar"): (64, 8, 269_072),
    ("resnet20", "imagenet"): (64, 2, 270_992),
    ("resnet18", "cifar"): (512, 4, 11_168_832),
    ("resnet18", "imagenet"): (512, 1, 11_176_512),
    ("resnet34", "cifar"): (512, 4, 21_276_992),
    ("resnet34", "imagenet"): (512, 1, 21_284_672),
    ("resnet50", "cifar"): (2048, 4, 23_500_352),
    ("resnet50", "imagenet"): (2048, 1, 23_508_032),
}


@functools.cache  # ResNet-50 takes seconds to build
def built(name: str, stem: str) -> tf.keras.Model:
    return encoder.build_encoder(name, stem, 32)


def views(size: int, count: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, size, size, 3)).astype(np.float32)


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
    assert stock == [] and sum(isinstance(layer, FusedBatchNorm) for layer in layers) >= 19


def test_smaller_views_and_other_channels() -> None:
    model = encoder.build_encoder("resnet20", "cifar", 20, channels=1)
    assert model(views(20)[..., :1], training=False).shape == (2, 64)


# BatchNorm


def batch_norm_in_float64(x: Any, gamma: Any, beta: Any, epsilon: float, cotangent: Any) -> dict[str, np.ndarray]:
    """Ioffe and Szegedy 2015, section 3: y, and the gradients of sum(cotangent y)."""
    x, axes = x.astype(np.float64), (0, 1, 2)
    root = 1 / np.sqrt(x.var(axes) + epsilon)
    unit = (x - x.mean(axes)) * root
    plain, along = cotangent.mean(axes), (cotangent * unit).mean(axes)
    return {
        "y": gamma * unit + beta,
        "dx": gamma * root * (cotangent - plain - unit * along),
        "dgamma": (cotangent * unit).sum(axes),
        "dbeta": cotangent.sum(axes),
    }


def batch_norm_of(layer: Any, x: np.ndarray, gamma: Any, beta: Any, cotangent: np.ndarray) -> dict[str, np.ndarray]:
    layer.build(x.shape)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    view = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(view)
        y = layer(view, training=True)
        total = tf.reduce_sum(y * cotangent)
    dx, dgamma, dbeta = tape.gradient(total, [view, *layer.trainable_variables])
    return {"y": y.numpy(), "dx": dx.numpy(), "dgamma": dgamma.numpy(), "dbeta": dbeta.numpy()}


def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x (2, 3, 3, 5) off centre, gamma and beta (5,), a cotangent: 18 values a channel, so that Bessel's counts."""
    rng = np.random.default_rng(5)
    x = (2 + 1.5 * rng.normal(size=(2, 3, 3, 5))).astype(np.float32)
    gamma, beta = rng.uniform(0.5, 2, 5).astype(np.float32), rng.normal(size=5).astype(np.float32)
    return x, gamma, beta, rng.normal(size=x.shape).astype(np.float32)


def test_the_fused_batch_norm_is_kerass_in_output_and_gradients() -> None:
    x, gamma, beta, cotangent = batch()
    right = batch_norm_in_float64(x, gamma, beta, 1e-3, cotangent)
    ours = batch_norm_of(FusedBatchNorm(momentum=0.9, epsilon=1e-3), x, gamma, beta, cotangent)
    stock = tf.keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3)
    theirs = batch_norm_of(stock, x, gamma, beta, cotangent)
    root = 1 / np.sqrt(x.var((0, 1, 2)).min())
    unit, largest = np.abs(x).max() * root, np.abs(cotangent).max()
    terms = x.size / x.shape[-1]
    scale = {"y": 2 * unit, "dx": 2 * root * unit * largest, "dgamma": terms * unit * largest, "dbeta": terms * largest}
    for name, value in right.items():
        allowed = 2 * np.abs(theirs[name] - value).max() + 8 * EPS * scale[name]
        assert np.abs(ours[name] - value).max() <= allowed, name


def test_moving_statistics_in_training() -> None:
    x, gamma, beta, cotangent = batch()
    layer, stock = (kind(momentum=0.9, epsilon=1e-3) for kind in (FusedBatchNorm, tf.keras.layers.BatchNormalization))
    for each in (layer, stock):
        batch_norm_of(each, x, gamma, beta, cotangent)
    terms, rounding = x.size // x.shape[-1], 32 * EPS * np.abs(x).max() ** 2
    assert np.abs(layer.moving_mean.numpy() - stock.moving_mean.numpy()).max() <= rounding
    # Keras 2's own layer has Bessel's correction from the kernel; that of Keras 3 has none.
    bessel = terms / (terms - 1) if keras.find_keras_generation() == 3 else 1.0
    variance = (stock.moving_variance.numpy() - 0.9) * bessel + 0.9
    assert np.abs(layer.moving_variance.numpy() - variance).max() <= rounding
    unbiased = 0.9 + 0.1 * x.astype(np.float64).var((0, 1, 2), ddof=1)
    assert np.abs(layer.moving_variance.numpy() - unbiased).max() <= rounding


def test_inference_uses_the_moving_statistics_and_leaves_them() -> None:
    x, gamma, beta, cotangent = batch()
    layer = FusedBatchNorm(momentum=0.9, epsilon=1e-3)
    batch_norm_of(layer, x, gamma, beta, cotangent)
    mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    right = gamma * (x.astype(np.float64) - mean) / np.sqrt(variance + 1e-3) + beta
    rounding = 8 * EPS * (np.abs(x).max() + np.abs(mean).max()) * np.abs(gamma).max() / np.sqrt(variance.min())
    assert np.abs(layer(x, training=False).numpy() - right).max() <= rounding + 8 * EPS * np.abs(beta).max()
    assert np.array_equal(layer.moving_mean.numpy(), mean) and np.array_equal(layer.moving_variance.numpy(), variance)


def test_statistics_move_once_a_step_of_a_compiled_loop() -> None:
    x = batch()[0]
    layer = FusedBatchNorm(momentum=0.9, epsilon=1e-3)
    layer.build(x.shape)

    @tf.function
    def three_steps(x: tf.Tensor) -> None:
        for _ in tf.range(3):
            layer(x, training=True)

    three_steps(tf.constant(x))
    right = (1 - 0.9**3) * x.astype(np.float64).mean((0, 1, 2))
    assert np.abs(layer.moving_mean.numpy() - right).max() <= 32 * EPS * np.abs(x).max()


def test_the_variables_are_those_of_kerass_layer() -> None:
    shapes = []
    for layer in (FusedBatchNorm(momentum=0.9, epsilon=1e-3), tf.keras.layers.BatchNormalization()):
        layer.build((None, 4, 4, 6))
        shapes.append(([tuple(v.shape) for v in layer.trainable_variables], [tuple(v.shape) for v in layer.variables]))
    assert shapes[0] == shapes[1] == ([(6,)] * 2, [(6,)] * 4)


def test_the_fused_batch_norm_can_be_built_from_its_config() -> None:
    layer = FusedBatchNorm(momentum=0.7, epsilon=2e-3, name="norm")
    again = FusedBatchNorm.from_config(layer.get_config())
    assert (again.momentum, again.epsilon, again.name) == (0.7, 2e-3, "norm")


# Precision


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


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="no precision 'int8'"):
        set_precision("int8")


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float16"), ((7, 0), "float16"), ((6, 1), "float32")],
)
def test_the_fast_precision_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    details = {"compute_capability": capability}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    assert choose_fast_precision() == precision
    assert has_bfloat16() == (precision == "bfloat16")


@pytest.mark.parametrize(
    ("vendor", "flags", "precision"),
    [
        ("GenuineIntel", "fma avx2 avx512f", "float32"),
        ("AuthenticAMD", "avx512f avx512_bf16", "bfloat16"),  # Zen 4
        ("AuthenticAMD", "avx512f avx512_bf16 avx512_fp16", "bfloat16"),
        ("GenuineIntel", "avx512f avx512_bf16", "bfloat16"),  # Cooper Lake, before AMX
        ("GenuineIntel", "avx512f avx512_bf16 avx512_fp16 amx_bf16 amx_tile", "bfloat16"),
        ("GenuineIntel", "avx512f avx512_bf16 avx512_fp16", "float32"),  # AMX hidden by a virtual machine
    ],
)
def test_the_fast_precision_of_a_processor(
    monkeypatch: pytest.MonkeyPatch, vendor: str, flags: str, precision: str
) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(Path, "exists", lambda path: True)
    text = f"processor : 0\nvendor_id : {vendor}\nflags : fpu {flags}\n"
    monkeypatch.setattr(Path, "read_text", lambda path: text)
    assert choose_fast_precision() == precision
    assert has_bfloat16() == ("bf16" in flags)


def test_a_system_without_cpuinfo_trains_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert choose_fast_precision() == "float32"
    assert not has_bfloat16()


# Weights


def test_random_weights_are_a_function_of_the_seed() -> None:
    first = encoder.build_encoder("resnet20", "cifar", 16, seed=3).get_weights()
    tf.keras.layers.Dense(3).build((None, 4))  # what is built in between must not matter
    again = encoder.build_encoder("resnet20", "cifar", 16, seed=3).get_weights()
    other = encoder.build_encoder("resnet20", "cifar", 16, seed=4).get_weights()
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    kernels = [(one, two) for one, two in zip(first, other, strict=True) if one.ndim > 1]
    assert not any(np.array_equal(one, two) for one, two in kernels)
    same_shape = [one for one, _ in kernels if one.shape == (3, 3, 16, 16)]
    assert len({one.tobytes() for one in same_shape}) == len(same_shape) == 6  # layers of one shape differ


def test_weights_come_back_from_a_file(tmp_path: Path) -> None:
    file = str(tmp_path / "f.weights.h5")
    saved = encoder.build_encoder("resnet20", "cifar", 16, seed=3)
    stock_layers.build_stock_twin(saved).save_weights(file)  # what a person with plain Keras has
    loaded = encoder.build_encoder("resnet20", "cifar", 16, weights=file, seed=4)
    assert all(np.array_equal(one, two) for one, two in zip(saved.get_weights(), loaded.get_weights(), strict=True))
    with pytest.raises(ValueError, match="are not of resnet20"):
        encoder.build_encoder("resnet20", "imagenet", 16, weights=file)


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


def test_a_download_that_fails_names_the_file_and_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = tf.keras.applications.ResNet50

    def offline(**options: Any) -> tf.keras.Model:
        if options.get("weights") == "imagenet":
            raise Exception("URL fetch failure")  # the class that Keras raises
        return stock(**options)

    monkeypatch.setattr(tf.keras.applications, "ResNet50", offline)
    with pytest.raises(ValueError, match="put resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5 into .*models"):
        encoder.build_encoder("resnet50", "imagenet", 32, weights="imagenet")


def kerass_resnet50() -> tf.keras.Model:
    """Keras's own, with biases and moving statistics that are not those of its first day."""
    model = tf.keras.applications.ResNet50(include_top=False, weights=None, input_shape=(None, None, 3), pooling="avg")
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.Conv2D):
            layer.bias.assign(rng.normal(size=layer.bias.shape))
        elif isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(size=layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
    return model


def test_imagenet_weights_take_red_green_blue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras's own model on its caffe input, blue first, and ours on the same colours, red first: one h."""
    theirs = kerass_resnet50()
    monkeypatch.setattr(encoder, "load_imagenet", lambda: theirs)
    ours = encoder.build_encoder("resnet50", "imagenet", 32, weights="imagenet")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    caffe = tf.keras.applications.resnet50.preprocess_input(pixels.copy())
    red_first = (pixels / 255 - np.float32(CAFFE["input_mean"])) / np.float32(CAFFE["input_std"])
    wanted = theirs(caffe, training=False).numpy()
    assert np.abs(ours(red_first, training=False).numpy() - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert np.abs(ours(red_first[..., ::-1], training=False).numpy() - wanted).max() > 1e-2 * np.abs(wanted).max()


def test_a_file_of_kerass_resnet50_is_taken_without_its_biases(tmp_path: Path) -> None:
    """One h from the moving statistics, which have taken up the biases, and one h in training, which forgets them."""
    file, theirs = str(tmp_path / "keras.weights.h5"), kerass_resnet50()
    theirs.save_weights(file)
    ours = encoder.build_encoder("resnet50", "imagenet", 32, weights=file)
    assert not any(layer.use_bias for layer in ours.layers if isinstance(layer, tf.keras.layers.Conv2D))
    for training, size in ((False, 2), (True, 32)):
        wanted = theirs(views(32, size), training=training).numpy()
        found = ours(views(32, size), training=training).numpy()
        assert np.abs(found - wanted).max() <= 1e-3 * np.abs(wanted).max(), training
