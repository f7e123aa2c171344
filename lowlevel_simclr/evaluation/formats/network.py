"""Prepares the networks for export: the encoder, with or without its preprocessing and the projection head.

The modules `to_*.py` write the formats. All of them except PyTorch convert the Keras model that `build_model` returns.
So all these files do the same computation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from lowlevel_simclr.data.transform import PixelScaling, find_transform
from lowlevel_simclr.model.stock_layers import build_stock_twin
from lowlevel_simclr.runtime.keras import unwrap_variable

IMAGES, VIEWS = "images", "views"  # names of the input, with and without preprocessing


@dataclasses.dataclass(frozen=True)
class Network:
    """The networks of a run, and the choice of the parts to export.

    Attributes:
        encoder: the encoder f, (B, S, S, C) -> h (B, d), float32.
        head: the projection head g, h (B, d) -> z (B, d'), float32. With None, the export has no projection head.
        scaling: the scaling of the pixels.
        preprocessing: whether the model takes images (B, H, W, C) uint8 and resizes and scales them. Otherwise the
            model takes views (B, S, S, C) float32, which are already resized and scaled.
        image_size: H and W of the images, in pixels. None: any size.
        unfinished: a sentence if the training of the run has not ended, otherwise "".
    """

    encoder: tf.keras.Model
    head: tf.keras.Model | None
    scaling: PixelScaling
    preprocessing: bool = True
    image_size: int | None = None
    unfinished: str = ""

    @property
    def input_name(self) -> str:
        """The name of the input: images or views."""
        return IMAGES if self.preprocessing else VIEWS

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs, in the order of the alphabet: h, or h and z."""
        return ["h"] if self.head is None else ["h", "z"]

    @property
    def signature(self) -> tf.TensorSpec:
        """Shape and type of the input. Any batch size is allowed. Without `image_size`, images may have any size."""
        size, channels = self.encoder.input_shape[1], self.encoder.input_shape[-1]
        if not self.preprocessing:
            return tf.TensorSpec([None, size, size, channels], tf.float32, name=VIEWS)
        return tf.TensorSpec([None, self.image_size, self.image_size, channels], tf.uint8, name=IMAGES)


def build_model(network: Network) -> tf.keras.Model:
    """Return a Keras model that has only Keras's own layers.

    It maps images or views to h, or to {"h": ..., "z": ...} if the network has a projection head.
    """
    given = tf.keras.Input(network.signature.shape[1:], dtype="float32", name=network.input_name)
    x = find_transform(network.encoder, network.scaling)(given) if network.preprocessing else given
    h = build_stock_twin(network.encoder)(x)
    outputs = h if network.head is None else {"h": h, "z": build_stock_twin(network.head)(h)}
    return tf.keras.Model(given, outputs, name=network.encoder.name)


def make_function(model: tf.keras.Model, network: Network) -> Any:
    """Return a `tf.function` that calls a model of `build_model`, with the input and outputs that `network` names."""

    def compute(given: tf.Tensor) -> dict[str, tf.Tensor]:
        found = model(tf.cast(given, tf.float32), training=False)
        return dict(found) if isinstance(found, dict) else {"h": found}

    return name_input(compute, network)


def name_input(compute: Callable[[tf.Tensor], dict[str, tf.Tensor]], network: Network) -> Any:
    """Return `compute` as a `tf.function` whose input has the name, shape and type of the network's `signature`."""
    # TensorFlow names the input of a signature after the parameter.
    by_name = (lambda images: compute(images)) if network.preprocessing else (lambda views: compute(views))
    return tf.function(by_name, input_signature=[network.signature], autograph=False)


def list_variables(model: tf.keras.Model) -> list[tf.Variable]:
    """Return the variables of a model as `tf.Variable` objects, also with Keras 3."""
    return [unwrap_variable(variable) for variable in model.variables]


def compute_reference(network: Network, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs of the networks for images (n, H, W, C) uint8, computed on the CPU in full float32.

    A GPU would round the inputs of matrix products to 10 bits of mantissa (TF32). These rounding errors would then also
    count as differences of the exported file.
    """
    with tf.device("/CPU:0"):
        views = find_transform(network.encoder, network.scaling)(tf.constant(images))
        h = network.encoder(views, training=False)
        z = {} if network.head is None else {"z": network.head(h, training=False).numpy()}
    return {"h": h.numpy(), **z}


def prepare_input(network: Network, images: np.ndarray) -> np.ndarray:
    """Return the input of the exported model: the images (n, H, W, C) uint8, or views made of them, float32."""
    if network.preprocessing:
        return images
    return find_transform(network.encoder, network.scaling)(tf.constant(images)).numpy()
