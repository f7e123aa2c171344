"""Weights that an encoder starts from: Keras's ImageNet weights, or a file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from lowlevel_simclr.model.errors import ModelError
from lowlevel_simclr.model.stock_layers import build_in_stock_layers
from lowlevel_simclr.runtime.files import LARGEST_WEIGHTS, open_regular_file

layers = tf.keras.layers

IMAGENET_FILE = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"


def load_imagenet() -> tf.keras.Model:
    """Return Keras's ResNet-50 with its ImageNet weights.

    Keras takes the weights from ~/.keras/models, and downloads them there if they are missing.

    Raises:
        ModelError: if the weights are not there and cannot be downloaded.
    """
    folder = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    try:
        return tf.keras.applications.ResNet50(
            include_top=False, weights="imagenet", input_shape=(None, None, 3), pooling="avg"
        )
    except Exception as error:  # Keras raises a plain Exception if a download fails
        raise ModelError(
            f"The ImageNet weights of ResNet-50 could not be downloaded ({error}). Download {IMAGENET_FILE} yourself "
            f"and put it into {folder}."
        ) from error


def take_folded_weights(model: tf.keras.Model, biased: tf.keras.Model) -> None:
    """Copy the weights of Keras's ResNet-50 into ours. Keras's convolutions have biases and ours do not.

    Since (x + b) - mean = x - (mean - b), the bias b of a convolution is subtracted from the moving mean of the
    BatchNorm behind it.

    Args:
        model: our ResNet-50. Its weights are overwritten.
        biased: Keras's ResNet-50, with the same layer names.
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
    """Reverse the channels of the first kernel (7, 7, 3, 64).

    Keras's ImageNet weights were trained on blue, green, red. Our views are red, green, blue.
    """
    first = model.get_layer("conv1_conv")
    first.set_weights([first.get_weights()[0][:, :, ::-1]])


def load_file(model: tf.keras.Model, path: str) -> None:
    """Load weights from a file that was saved from stock layers.

    The file is read into stock layers first, because Keras 3 finds weights by the class of each layer.

    Args:
        model: the encoder. Its weights are overwritten.
        path: path of the file.

    Raises:
        ModelError: if the file cannot be read, is damaged, belongs to another model, or contains NaN.
    """
    _refuse_unreadable(path)
    twin = build_in_stock_layers(model)
    try:
        twin.load_weights(path)
        model.set_weights(twin.get_weights())
    except Exception as error:  # Keras raises many types of error for a file that does not fit
        if model.name != "resnet50" or not _load_biased(model, path):
            reason = " ".join(str(error).split())[:300]
            raise ModelError(
                f"The weights in '{path}' do not fit {model.name} with this stem and this number of channels, or the "
                f"file is damaged. Use a file that Keras saved from this encoder. Keras says: {reason}"
            ) from error
    if not all(np.isfinite(array).all() for array in model.get_weights()):
        raise ModelError(f"The weights in '{path}' contain NaN or infinite values. Use other --weights.")


def _refuse_unreadable(path: str) -> None:
    """Check that a path is a regular file that can be read, because Keras would wait for a FIFO.

    Raises:
        ModelError: if it is not.
    """
    try:
        with open_regular_file(Path(path), LARGEST_WEIGHTS, "LARGEST_WEIGHTS"):
            pass
    except OSError as error:
        raise ModelError(
            f"The weights in '{path}' cannot be read: {error.strerror or error}. Use a file that Keras saved."
        ) from error


def _load_biased(model: tf.keras.Model, path: str) -> bool:
    """Load a file of Keras's own ResNet-50, whose convolutions have biases. Return False if it is not such a file."""
    biased = build_in_stock_layers(model, use_bias=True)
    try:
        biased.load_weights(path)
    except Exception:  # the caller reports why the file does not fit our encoder
        return False
    take_folded_weights(model, biased)
    return True
