"""The test transform: the preprocessing of an image before the encoder computes the representation h.

The transform has no randomness. It divides the pixels by 255, and resizes the whole image to the size of the encoder's
input if it has another size (bilinear, half-pixel centres, antialiased). Then it computes (x - mean) / std. Evaluation,
`embed` and `encoder.keras` all use this transform, so that they agree.
"""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from lowlevel_simclr.contract.view_checks import list_frames
from lowlevel_simclr.data.framed_images import FramedImages
from lowlevel_simclr.data.resize_any_size import resize_any_size
from lowlevel_simclr.data.resize_in_xla import resize_by_products, resize_frames
from lowlevel_simclr.runtime.keras import find_keras_generation, find_symbolic_type
from lowlevel_simclr.runtime.xla import is_inside_xla


class PixelScaling(NamedTuple):
    """The scaling (x - mean) / std of pixels x in [0, 1], before the encoder.

    Attributes:
        mean: one number per channel. None means 0.
        std: one number per channel. None means 1.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


UNSCALED = PixelScaling()


@dataclasses.dataclass(frozen=True)
class InferenceTransform:
    """The test transform of one encoder.

    Attributes:
        size: S, pixels a side of the encoder's input. None keeps the size of the images.
        scaling: the scaling of the pixels.
    """

    size: int | None
    scaling: PixelScaling = UNSCALED

    def __call__(self, images: Any, sizes: Any = None) -> Any:
        """Transform a batch of images.

        Args:
            images: (B, H, W, C) uint8 or float in [0, 255], as tensors or as symbolic images of Keras.
            sizes: (B, 2) integers, the height and width of each image, if the images lie in the upper left corners of
                padded arrays. None: there is no padding. With `sizes`, the transform must have a size S, and the images
                must be tensors.

        Returns:
            (B, S, S, C) float32.

        Raises:
            ValueError: if there are `sizes` but no S, or if a size is larger than H x W and its value is known.
        """
        if sizes is None:
            return self.standardise(self.resize(images))
        if self.size is None:
            raise ValueError("Images of different sizes need a size for the result. Give the transform a size.")
        frames = list_frames(sizes, images, images.shape[1], images.shape[2])
        return self.standardise(resize_frames(tf.cast(images, tf.float32) / 255, frames, self.size))

    def resize(self, images: Any) -> Any:
        """Return (..., S, S, C) float32 in [0, 1] for images (..., H, W, C), uint8 or float in [0, 255]."""
        x = _choose_operations(images).cast(images, "float32") / 255
        if self.size is None or tuple(x.shape[-3:-1]) == (self.size, self.size):
            return x
        return resize_antialiased(x, self.size)

    def standardise(self, x: Any) -> Any:
        """Return (x - mean) / std for pixels x in [0, 1]."""
        mean, std = self.scaling
        x = x if mean is None else x - np.array(mean, np.float32)
        return x if std is None else x / np.array(std, np.float32)

    def describe(self, images: Any) -> str:
        """Describe in words what the transform does to `images`: an array (..., H, W, C), or images of a data set."""
        height, width = images.shape[-3:-1]
        part = "the square in the middle of each image" if isinstance(images, FramedImages) else "the whole image"
        words = [f"{part}, no augmentation"]
        if self.size is not None and (height, width) != (self.size, self.size):
            words.append(f"{width}x{height} resized to {self.size}x{self.size} (bilinear, antialiased)")
        words.append("pixels in [0, 1]")
        if self.scaling.mean is not None:
            words.append("less " + " ".join(f"{value:.4g}" for value in self.scaling.mean))
        if self.scaling.std is not None:
            words.append("over " + " ".join(f"{value:.4g}" for value in self.scaling.std))
        return ", ".join(words)


def find_transform(encoder: tf.keras.Model, scaling: PixelScaling = UNSCALED) -> InferenceTransform:
    """Return the test transform of an encoder (B, S, S, C) -> (B, d)."""
    return InferenceTransform(encoder.input_shape[1], scaling)


def resize_antialiased(images: Any, size: int) -> Any:
    """Resize images (..., H, W, C) to (..., size, size, C): bilinear and antialiased.

    The images are tensors, or symbolic images of Keras, which have four axes. For symbolic images the function uses
    only operations that Keras saves and loads as layers, and that other formats support too. It cannot use the layer
    `Resizing`. In Keras 2 this layer has no antialiasing. In Keras 3 it assumes `training=True` if no value is given,
    and passes this on to the layers after it. So a model that is called directly would update the moving statistics of
    its BatchNorm layers.
    """
    if _is_symbolic(images):
        return resize_any_size(images, size, _choose_operations(images))
    if is_inside_xla():
        return resize_by_products(images, size)
    return tf.image.resize(images, (size, size), "bilinear", antialias=True)


def _choose_operations(images: Any) -> ModuleType:
    """Return TensorFlow, or `keras.ops` for symbolic images of Keras 3, which TensorFlow does not accept."""
    return tf.keras.ops if find_keras_generation() == 3 and _is_symbolic(images) else tf


def _is_symbolic(images: Any) -> bool:
    """Return whether the images are symbolic images of Keras."""
    return isinstance(images, find_symbolic_type())
