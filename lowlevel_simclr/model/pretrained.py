"""Weights that an encoder starts from: Keras's ImageNet weights, or a file."""

from __future__ import annotations

import os
from pathlib import Path

import tensorflow as tf

from lowlevel_simclr.model.stock_layers import build_in_stock_layers

layers = tf.keras.layers

IMAGENET_FILE = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"


def load_imagenet() -> tf.keras.Model:
    """Keras's ResNet-50 with its ImageNet weights, from ~/.keras/models or downloaded into it.

    Raises:
        ValueError: they are not there and cannot be downloaded.
    """
    folder = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    try:
        return tf.keras.applications.ResNet50(
            include_top=False, weights="imagenet", input_shape=(None, None, 3), pooling="avg"
        )
    except Exception as error:  # Keras raises a plain Exception for a download that fails
        raise ValueError(
            f"the ImageNet weights of ResNet-50 could not be downloaded ({error}): put {IMAGENET_FILE} into {folder}"
        ) from error


def take_folded_weights(model: tf.keras.Model, biased: tf.keras.Model) -> None:
    """The weights of Keras's ResNet-50, whose convolutions have biases, for ours without.

    (x + b - mean) is (x - (mean - b)): the moving mean of the BatchNorm behind a convolution takes up its bias.
    """
    biases = {layer.name: layer.bias.numpy() for layer in biased.layers if isinstance(layer, layers.Conv2D)}
    for layer in model.layers:
        theirs = biased.get_layer(layer.name).get_weights() if layer.weights else []
        if layer.name in biases:
            theirs = theirs[:1]
        elif theirs:
            gamma, beta, mean, variance = theirs
            theirs = [gamma, beta, mean - biases[layer.name.removesuffix("bn") + "conv"], variance]
        layer.set_weights(theirs)


def turn_first_kernel(model: tf.keras.Model) -> None:
    """The first kernel (7, 7, 3, 64) with its channels turned round: it was trained on blue, green, red."""
    first = model.get_layer("conv1_conv")
    first.set_weights([first.get_weights()[0][:, :, ::-1]])


def load_file(model: tf.keras.Model, path: str) -> None:
    """Weights from a file that was saved from stock layers; Keras 3 finds them by the class of each layer.

    Raises:
        ValueError: the file is damaged or of another model.
    """
    twin = build_in_stock_layers(model)
    try:
        twin.load_weights(path)
    except Exception as error:  # Keras has many for a file that does not fit
        if model.name == "resnet50" and _load_biased(model, path):
            return
        raise ValueError(
            f"the weights in '{path}' are not of {model.name} with this stem and these channels: {error}"
        ) from error
    model.set_weights(twin.get_weights())


def _load_biased(model: tf.keras.Model, path: str) -> bool:
    """Weights from a file of Keras's own ResNet-50, with biases; False where it is none."""
    biased = build_in_stock_layers(model, use_bias=True)
    try:
        biased.load_weights(path)
    except Exception:  # the caller tells why it is not ours either
        return False
    take_folded_weights(model, biased)
    return True
