"""Tests how an image is resized and scaled before a trained encoder gets it (the test transform).

Every program that computes the encoder's output h must do this in the same way, and record how it was done.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.config import settings
from lowlevel_simclr.data.framed_images import FramedImages
from lowlevel_simclr.data.transform import InferenceTransform, PixelScaling
from lowlevel_simclr.evaluation import export, represent
from lowlevel_simclr.evaluation.embedding.encoder import make_embedder
from lowlevel_simclr.model import encoder, projection
from lowlevel_simclr.run import checkpoint
from lowlevel_simclr.runtime import keras
from tests.support.pillow_crop import pillow as crop_by_pillow


@pytest.mark.parametrize(
    ("size", "mean", "std", "words"),
    [
        (32, None, None, "the whole image, no augmentation, pixels in [0, 1]"),
        (20, (0.5,), (0.25,), "40x32 resized to 20x20 (bilinear, antialiased), pixels in [0, 1], less 0.5, over 0.25"),
    ],
)
def test_the_transform_is_told_as_it_is(size: int, mean: tuple | None, std: tuple | None, words: str) -> None:
    shape = (7, 32, 32 if size == 32 else 40, 3)
    said = InferenceTransform(size, PixelScaling(mean, std)).describe(np.zeros(shape, np.uint8))
    assert said.removeprefix("the whole image, no augmentation, ") == words.removeprefix(
        "the whole image, no augmentation, "
    )


def test_of_images_of_several_sizes_the_square_in_the_middle_is_told() -> None:
    """Test that, for images of several sizes, the recorded text names the square in the middle of each image.

    An earlier version recorded that the encoder got whole images, although it got squares.
    """
    images = FramedImages(np.zeros((2, 24, 40, 3), np.uint8), np.array([[24, 32], [20, 40]], np.int32), 24)
    said = InferenceTransform(16).describe(images)
    assert said.startswith("the square in the middle of each image, no augmentation, 24x24 resized to 16x16")


def apply_by_numpy(images: np.ndarray, size: int, scaling: PixelScaling) -> np.ndarray:
    """Return the encoder's input, computed without this package: Pillow resizes the images, and NumPy scales them."""
    height, width = images.shape[1:3]
    planes = [
        crop_by_pillow(image[..., c].astype(np.float32), (0, 0, height, width), size)
        for image in images
        for c in range(3)
    ]
    x = np.stack(planes).reshape(len(images), 3, size, size).transpose(0, 2, 3, 1) / 255
    return ((x - np.array(scaling.mean)) / np.array(scaling.std)).astype(np.float32)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 11), (19, 14)])
def test_evaluation_embedding_and_the_exported_encoder_give_one_h(tmp_path: Path, height: int, width: int) -> None:
    """Compare the h of evaluation, embedding and exported encoder with h for an input from `apply_by_numpy`."""
    scaling = PixelScaling((0.5, 0.4, 0.3), (0.2, 0.25, 0.5))
    f, g = encoder.build_encoder("resnet20", "cifar", 8, seed=5), projection.build_projection_head(64, (8,), seed=5)
    variables = {**keras.name_variables("encoder", f), **keras.name_variables("projection", g)}
    arrays = {name: variable.numpy() for name, variable in variables.items()}
    checkpoint.save(tmp_path / "checkpoints", 1, arrays, {}, keep=1)
    images = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)
    model = settings.ModelConfig(image_size=8, projection_widths=(8,))

    by_evaluation = represent.compute_h(f, images, scaling)
    by_embed = make_embedder(tmp_path, model, scaling, 3, "h").embed(images)
    by_file = export.add_preprocessing(f, scaling).predict(images, verbose=0)
    expected = f(apply_by_numpy(images, 8, scaling), training=False).numpy()
    assert (
        np.ptp(expected, axis=0).max() > 0.01 * np.abs(expected).max()
    )  # different images have different h, otherwise the comparison would prove nothing
    for h in (by_evaluation, by_embed, by_file):
        np.testing.assert_allclose(h, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_another_scaling_or_size_is_another_h() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), np.uint8)
    plain = InferenceTransform(8)(images).numpy()
    assert 0 <= plain.min() < plain.max() <= 1
    scaled = InferenceTransform(8, PixelScaling((0.5,) * 3, (0.25,) * 3))(images).numpy()
    np.testing.assert_allclose(scaled, (plain - 0.5) / 0.25, rtol=0, atol=1e-6)
    assert InferenceTransform(None)(images).shape == (2, 12, 12, 3)
