"""Tests the presets, which are named sets of settings for training.

Each preset must have the values of the publication or program that it follows. It must build its model and train two
steps.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr import stock
from lowlevel_simclr.config import command_line, identity, presets
from lowlevel_simclr.config.presets import PRESETS, load_preset, scale_jitter
from lowlevel_simclr.config.settings import ConfigError, ViewRecipe
from lowlevel_simclr.config.validation import validate
from lowlevel_simclr.data.batches import make_batches
from lowlevel_simclr.data.catalog import select_training_images
from lowlevel_simclr.data.transform import PixelScaling
from lowlevel_simclr.data.views import make_two_views
from lowlevel_simclr.optim import schedule
from lowlevel_simclr.training.learner import build_learner
from lowlevel_simclr.training.loop import make_steps
from lowlevel_simclr.training.plan import make_plan
from tests.support.labelled_images import draw_cifar_images

SMALL = {"image_size": 16, "batch_size": 4, "steps": 1, "warmup_epochs": 0.0, "xla": "off", "precision": "float32"}
SLOW = pytest.mark.slow  # TensorFlow traces a ResNet for half a minute; faster tests check its layers


# All presets


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_valid_bears_its_name_and_tells_result_and_cost(name):
    config = load_preset(name)
    validate(config)
    text = PRESETS[name].__doc__
    assert config.preset == name and "Expected:" in text and "Cost:" in text


@pytest.mark.parametrize(
    "name", [name if name == "cifar10-resnet20" else pytest.param(name, marks=SLOW) for name in presets.PRESETS]
)
def test_a_preset_builds_and_takes_two_steps(name: str) -> None:
    chosen = presets.load_preset(name)
    small = {**SMALL, "steps": 2, "weights": "random", "ops": "stock"}
    if chosen.model.stem == "imagenet":
        small["image_size"] = 32
    chosen = identity.replace(chosen, **small)
    images = draw_cifar_images()
    plan = make_plan(chosen, images)
    learner = build_learner(plan, 3)
    before = learner.encoder.trainable_variables[0].numpy()
    steps = make_steps(plan, learner)
    batches = iter(make_batches(select_training_images(images), 4, 0, 0, 2))
    metrics = steps(batches, tf.constant(2))
    assert np.all(np.isfinite(metrics.loss.numpy())) and int(learner.step.numpy()) == 2
    assert np.abs(learner.encoder.trainable_variables[0].numpy() - before).max() > 0


# The strength of colour jitter


def test_the_views_start_from_the_published_recipe_at_strength_one():
    assert {name: getattr(ViewRecipe(), name) for name in scale_jitter(1.0)} == scale_jitter(1.0)
    assert scale_jitter(1.0) == {name: (0.2, 1.8) for name in ("brightness", "contrast", "saturation")} | {
        "hue": (-0.2, 0.2)
    }


def test_jitter_is_clipped_at_zero_and_refused_beyond_every_hue():
    assert scale_jitter(0.0)["hue"] == (0.0, 0.0) and scale_jitter(0.0)["contrast"] == (1.0, 1.0)
    assert scale_jitter(2.5)["contrast"] == (0.0, 3.0) and scale_jitter(2.5)["hue"] == (-0.5, 0.5)
    for strength in (-0.1, 2.6, float("nan")):
        with pytest.raises(ConfigError, match="--jitter-strength is"):
            scale_jitter(strength)


# The values of the publications and programs that the presets follow


def test_the_cifar_preset_has_the_recipe_of_the_paper_for_cifar():
    views = load_preset("cifar10-resnet20").views
    assert (views.crop_area, views.contrast, views.hue) == ((0.08, 1.0), (0.6, 1.4), (-0.1, 0.1))
    assert (views.grey_probability, views.blur_probability) == (0.2, 0.0)


@pytest.mark.parametrize(
    ("name", "encoder", "widths", "batch_norm", "reduction", "optimizer", "rate", "decay", "temperature"),
    [
        ("simclr-b9", "resnet50", (2048, 128), "none", "mean", "lars", 4.0, 1e-6, 0.5),
        ("google-readme", "resnet18", (512, 512, 128), "google", "google", "lars", 2.0, 1e-4, 0.5),
        ("kobak", "resnet18", (1024, 128), "none", "mean", "sgd", 0.06, 5e-4, 0.5),
        ("solo", "resnet18", (2048, 256), "none", "mean", "lars", 0.4, 1e-4, 0.2),
        ("lightly", "resnet18", (512, 128), "all", "mean", "sgd", 0.24, 5e-4, 0.5),
    ],
)
def test_a_published_recipe_is_pinned(
    name: str,
    encoder: str,
    widths: tuple[int, ...],
    batch_norm: str,
    reduction: str,
    optimizer: str,
    rate: float,
    decay: float,
    temperature: float,
) -> None:
    chosen = presets.load_preset(name)
    scaling, size = chosen.optimizer.learning_rate_scaling, chosen.train.batch_size
    found = schedule.scale_learning_rate(chosen.optimizer.learning_rate, size, scaling)
    assert found == pytest.approx(rate)  # the learning rate that the optimizer gets
    assert (chosen.model.encoder, chosen.model.stem, chosen.data.train_on) == (encoder, "cifar", "train")
    assert (chosen.model.projection_widths, chosen.model.projection_batch_norm) == (widths, batch_norm)
    assert (chosen.optimizer.optimizer, chosen.optimizer.weight_decay) == (optimizer, decay)
    assert (chosen.loss.loss_reduction, chosen.loss.temperature) == (reduction, temperature)
    assert chosen.optimizer.warmup_epochs == (10 if optimizer == "lars" else 0)


def test_the_views_of_a_source_are_its_own() -> None:
    views = {
        name: presets.load_preset(name).views for name in ("simclr-b9", "google-readme", "kobak", "solo", "lightly")
    }
    assert {name: each.crop_area[0] for name, each in views.items() if each.crop_area[0] != 0.08} == {"kobak": 0.2}
    assert {name: each.grey_probability for name, each in views.items() if each.grey_probability != 0.2} == {
        "kobak": 0.1
    }
    assert {name: each.blur_probability for name, each in views.items() if each.blur_probability} == {"solo": 0.5}
    assert {name for name, each in views.items() if each.hue == (-0.1, 0.1)} == set(views) - {"solo"}
    assert presets.load_preset("solo").optimizer.trust_coefficient == 0.02


# The preset day29


def test_the_views_of_day29_are_28_pixels_added_brightness_and_no_clip() -> None:
    chosen = presets.load_preset("day29")
    params = stock.draw_view_params(0, 0, tf.range(500, dtype=tf.int64), chosen.views, 32, 32)
    box = params.box.numpy()
    assert np.all(box[:, 2:] == 28)
    assert {tuple(place) for place in box[:, :2]} == {(y, x) for y in range(5) for x in range(5)}
    shift, contrast = params.brightness_shift.numpy(), params.contrast.numpy()
    assert -0.25 <= shift.min() < -0.24 and 0.24 < shift.max() <= 0.25
    assert 0.1 <= contrast.min() < 0.11 and 0.89 < contrast.max() <= 0.9
    neutral = (params.brightness, params.saturation, params.hue, params.blur_sigma, params.grey, params.clip)
    assert [np.unique(value.numpy().astype(float)).tolist() for value in neutral] == [[1], [1], [0], [0], [0], [0]]


def test_a_view_of_day29_is_the_notes_formula() -> None:
    """Compare the views of the preset day29 with the formula in the notes that this preset follows.

    The pixels are in [-1, 1]. An image is cropped to 28 pixels, resized to 32 and flipped. Then a brightness b is added
    to each pixel, and the difference of each pixel from the mean of its channel is multiplied by a contrast.
    """
    chosen, images = presets.load_preset("day29"), draw_cifar_images().train.images[:4]
    index = tf.range(4, dtype=tf.int64)
    model = chosen.model
    found = make_two_views(
        tf.constant(images), tf.constant(0, tf.int64), index, seed=0, recipe=chosen.views, size=32, dtype=tf.float32,
        implementation=stock, scaling=PixelScaling(model.input_mean, model.input_std),
    ).numpy()  # fmt: skip
    params = stock.draw_view_params(0, 0, index, chosen.views, 32, 32)
    rows = zip(*(value.numpy() for value in (params.box, params.flip, params.brightness_shift, params.contrast)))
    for row, ((y, x, _, _), flip, shift, contrast) in enumerate(rows):
        view = tf.image.resize(images[row % 4][y : y + 28, x : x + 28] / 127.5 - 1, (32, 32)).numpy()
        view = (view[:, ::-1] if flip else view) + 2 * shift
        mean = view.mean(axis=(0, 1))
        np.testing.assert_allclose(found[row], (view - mean) * contrast + mean, atol=1e-5)
    assert found.min() < -1  # values below -1 show that nothing is clipped


def test_day29_trains_on_both_splits_from_imagenet_weights_with_its_own_scale_of_pixels() -> None:
    chosen, _ = command_line.parse_run(["--preset", "day29"])
    assert (chosen.data.train_on, chosen.model.weights, chosen.loss.temperature) == ("all", "imagenet", 0.5)
    assert (chosen.model.input_mean, chosen.model.input_std) == ((0.5,) * 3, (0.5,) * 3)
    assert chosen.model.projection_widths == (256, 128) and chosen.model.stem == "imagenet"


def test_imagenet_weights_bring_their_preprocessing_unless_another_is_given() -> None:
    flags = ["--preset", "cifar10-resnet50", "--stem", "imagenet", "--weights", "imagenet"]
    model = command_line.parse_run(flags)[0].model
    stock_input = tf.keras.applications.resnet50.preprocess_input
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 3)).astype(np.float32)
    ours = (pixels / 255 - np.float32(model.input_mean)) / np.float32(model.input_std)
    np.testing.assert_allclose(ours[..., ::-1], stock_input(pixels.copy()), atol=1e-4)  # Keras's function returns BGR
    given = command_line.parse_run([*flags, "--input-mean", "0", "0", "0", "--input-std", "1", "1", "1"])[0].model
    assert (given.input_mean, given.input_std) == ((0.0,) * 3, (1.0,) * 3)
    assert command_line.parse_run(flags[:-2])[0].model.input_mean is None
