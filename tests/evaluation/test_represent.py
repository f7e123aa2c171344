"""Tests the computation of the encoder's outputs h for a data set: images are resized and scaled, but not augmented.

The encoder runs in inference mode, and its weights must not change.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from lowlevel_simclr.data.transform import PixelScaling
from lowlevel_simclr.evaluation import represent
from tests.support.labelled_images import draw_images, make_striped_data_set
from tests.support.progress_lines import print_every_line
from tests.support.small_encoder import build_small_encoder


@pytest.mark.parametrize("count", [3, 4, 11])
def test_h_is_the_encoder_in_inference_mode(count: int) -> None:
    encoder, images = build_small_encoder(), draw_images(count)
    h = represent.compute_h(encoder, images, batch_size=4)
    expected = encoder(images.astype(np.float32) / 255, training=False).numpy()
    assert h.dtype == np.float32
    np.testing.assert_allclose(h, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(encoder(images.astype(np.float32) / 255, training=True).numpy() - expected).max() > 0.01


def test_one_graph_serves_all_batches() -> None:
    encoder = build_small_encoder()
    before = represent._compute_batch.experimental_get_tracing_count()
    represent.compute_h(encoder, draw_images(11), batch_size=4)
    represent.compute_h(encoder, draw_images(6), batch_size=4)
    assert represent._compute_batch.experimental_get_tracing_count() - before == 1


def test_the_scaling_is_that_of_the_views() -> None:
    encoder, images, mean, std = build_small_encoder(), draw_images(5), (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
    h = represent.compute_h(encoder, images, PixelScaling(mean, std))
    x = (images / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(h, encoder(x.astype(np.float32), training=False).numpy(), rtol=1e-5, atol=1e-5)


def shrunk_or_grown(plane: np.ndarray) -> np.ndarray:
    """Return one channel of an image, resized to 8 x 8 by Pillow."""
    return np.asarray(Image.fromarray(plane.astype(np.float32)).resize((8, 8), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("size", [5, 19])
def test_another_size_is_resized_as_pillow_does(size: int) -> None:
    encoder, images = build_small_encoder(size=8), draw_images(2, size)
    h = represent.compute_h(encoder, images)
    resized = [np.stack([shrunk_or_grown(plane) for plane in image], -1) for image in images.transpose(0, 3, 1, 2)]
    expected = encoder(np.stack(resized).astype(np.float32) / 255, training=False).numpy()
    np.testing.assert_allclose(h, expected, rtol=1e-4, atol=1e-5)


class Diverged:
    """An encoder whose h is NaN."""

    input_shape = (None, 8, 8, 3)

    def __call__(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        return tf.reduce_mean(x, axis=[1, 2]) * float("nan")


def test_h_that_is_not_finite_is_refused() -> None:
    with pytest.raises(represent.NonFiniteRepresentation, match="of 7 images is NaN or infinite, first for image 0"):
        represent.compute_h(Diverged(), draw_images(7))


def test_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="no images to encode"):
        represent.compute_h(build_small_encoder(), draw_images(0))


def test_pixels_are_rows_in_0_1() -> None:
    images = draw_images(4)
    np.testing.assert_allclose(represent.flatten_pixels(images), images.reshape(4, -1) / 255, rtol=1e-6)
    assert represent.flatten_pixels(images).dtype == np.float32


# The weights of the encoder do not change


def test_both_splits_are_represented_and_weights_stand_still() -> None:
    encoder, images = build_small_encoder(), make_striped_data_set()
    before = represent.hash_weights(encoder)
    h = represent.represent_splits(encoder, images)
    np.testing.assert_array_equal(h.train, represent.compute_h(encoder, images.train.images))
    np.testing.assert_array_equal(h.test, represent.compute_h(encoder, images.test.images))
    assert represent.hash_weights(encoder) == before


class Restless:
    """An encoder whose weights change with every image that it sees."""

    input_shape = (None, 8, 8, 3)

    def __init__(self) -> None:
        self.weights = [tf.Variable(1.0, name="scale")]

    def __call__(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        self.weights[0].assign_add(0.5)
        return tf.reduce_mean(x, axis=[1, 2]) * self.weights[0]


def test_an_encoder_that_changes_is_refused() -> None:
    with pytest.raises(represent.EncoderChanged, match="weights changed during the evaluation"):
        represent.represent_splits(Restless(), make_striped_data_set())


@pytest.mark.parametrize("place", [0, -1])  # the first weight is a convolution's, the last one a moving variance
def test_the_hash_sees_one_bit_of_any_weight(place: int) -> None:
    encoder = build_small_encoder()
    before, weights = represent.hash_weights(encoder), encoder.get_weights()
    weights[place].reshape(-1)[-1] = np.nextafter(weights[place].reshape(-1)[-1], np.float32(9))
    encoder.set_weights(weights)
    assert represent.hash_weights(encoder) != before
    assert len(before) == 64


def test_only_with_a_title_the_images_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    print_every_line(monkeypatch)
    encoder, images = build_small_encoder(), draw_images(11)
    plain = represent.compute_h(encoder, images, batch_size=4)
    assert capsys.readouterr() == ("", "")
    np.testing.assert_array_equal(represent.compute_h(encoder, images, batch_size=4, title="h"), plain)
    counted = [line.split(" of ")[0] for line in capsys.readouterr().err.splitlines() if "images/s" in line]
    assert counted == ["h: 4", "h: 8", "h: 11"]
