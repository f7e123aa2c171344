"""Loads the weights with which an encoder starts: Keras's ImageNet weights, or the weights in a file."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import h5py  # a requirement of Keras
import numpy as np
import tensorflow as tf

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.model.errors import ModelError
from lowlevel_simclr.model.safetensors import DamagedFile, read_safetensors
from lowlevel_simclr.model.stock_layers import build_in_stock_layers
from lowlevel_simclr.model.torch_resnet import TORCH
from lowlevel_simclr.model.torch_weights import OtherNetwork, take_torch_arrays
from lowlevel_simclr.runtime.files import open_regular_file

layers = tf.keras.layers

LARGEST_WEIGHTS = 2**32  # bytes; the weights of ResNet-50 take 94 MB
SAFETENSORS, TORCH_ENDING = ".safetensors", "v1.5"
IMAGENET_FILE = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"


def load_imagenet() -> tf.keras.Model:
    """Return Keras's ResNet-50 with its ImageNet weights.

    Keras takes the weights from ~/.keras/models, and downloads them there if they are missing.

    Raises:
        ModelError: if the weights are missing and cannot be downloaded.
    """
    folder = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    try:
        return tf.keras.applications.ResNet50(
            include_top=False, weights="imagenet", input_shape=(None, None, 3), pooling="avg"
        )
    except Exception as error:  # Keras raises a plain Exception if a download fails
        raise ModelError(
            f"The ImageNet weights of ResNet-50 could not be downloaded ({error}). Download {IMAGENET_FILE} yourself "
            f"and put it into {show_name(folder)}."
        ) from error


def take_folded_weights(model: tf.keras.Model, biased: tf.keras.Model) -> None:
    """Copy the weights of Keras's ResNet-50 into ours. Keras's convolutions have biases and ours do not.

    Since (x + b) - mean = x - (mean - b), the function subtracts the bias b of a convolution from the moving mean of
    the BatchNorm after it.

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
    """Load weights from a file that Keras saved from its own (stock) layers, or from a safetensors file.

    Keras's file is first loaded into a copy of the encoder in stock layers, because Keras 3 finds weights by the class
    of each layer.

    Args:
        model: the encoder. Its weights are overwritten.
        path: path of the file.

    Raises:
        ModelError: if the file cannot be read, is damaged, belongs to another model, contains NaN or infinite values,
            or is larger than LARGEST_WEIGHTS.
    """
    if path.endswith(SAFETENSORS):
        _load_safetensors(model, Path(path))
    else:
        _load_keras_file(model, path)
    if not all(np.isfinite(array).all() for array in model.get_weights()):
        raise ModelError(f"The weights in '{show_name(path)}' contain NaN or infinite values. Use other --weights.")


def _load_safetensors(model: tf.keras.Model, path: Path) -> None:
    """Load weights that have the names of torchvision or timm."""
    if model.name not in TORCH:
        similar = f"{model.name}{TORCH_ENDING}"
        remedy = f"Use --encoder {similar}" if similar in TORCH else f"Use --encoder {' or '.join(TORCH)}"
        raise ModelError(
            f"The weights in '{path}' are those of PyTorch, whose networks pad in another way than {model.name}. "
            f"{remedy}, or other --weights."
        )
    try:
        take_torch_arrays(model, read_safetensors(path, LARGEST_WEIGHTS, "LARGEST_WEIGHTS"))
    except OSError as error:
        raise ModelError(f"The weights in '{path}' cannot be read: {error.strerror}. Use another file.") from error
    except (DamagedFile, OtherNetwork) as error:
        raise ModelError(
            f"The weights in '{path}' do not fit {model.name} with this stem and this number of channels: {error}. "
            f"Use a file of torchvision's or timm's {model.name.removesuffix(TORCH_ENDING)}."
        ) from error


def _load_keras_file(model: tf.keras.Model, path: str) -> None:
    """Load weights that Keras saved from this encoder, built from Keras's own (stock) layers."""
    refuse_large_weights(Path(path))
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


def refuse_large_weights(path: Path) -> None:
    """Check the array sizes that are stated in a file of weights, before Keras makes arrays of these sizes.

    In HDF5, an array that is compressed or was never written takes a few bytes in the file. In memory it can take any
    size. If a file is missing or damaged, this function raises nothing, because Keras describes the problem better.

    Args:
        path: a file of weights (.h5), or of a model (.keras).

    Raises:
        ModelError: if the path is not a regular file, or the weights take more than LARGEST_WEIGHTS.
    """
    if not path.exists():
        return
    try:
        with open_regular_file(path, LARGEST_WEIGHTS, "LARGEST_WEIGHTS") as file:
            size = _measure_archive(file) if zipfile.is_zipfile(file) else _measure_hdf5(file)
    except OSError as error:
        if error.strerror is None or error.filename is None:  # h5py's own error: the file is damaged
            return
        raise ModelError(
            f"The weights in '{show_name(path)}' cannot be read: {error.strerror}. Use another file."
        ) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RuntimeError):  # the file is damaged
        return
    if size > LARGEST_WEIGHTS:
        raise ModelError(
            f"The weights in '{show_name(path)}' take {size} bytes, more than LARGEST_WEIGHTS "
            f"({LARGEST_WEIGHTS} bytes). Use a file of weights for this encoder."
        )


def _measure_archive(file: BinaryIO) -> int:
    """Return the size of the members of a .keras file, or of the arrays in them if the arrays take more, in bytes."""
    with zipfile.ZipFile(file) as archive:
        size = sum(member.file_size for member in archive.infolist())
        if size > LARGEST_WEIGHTS:
            return size
        inside = [name for name in archive.namelist() if name.endswith(".h5")]
        return max([size, *(_measure_hdf5(io.BytesIO(archive.read(name))) for name in inside)])


def _measure_hdf5(file: BinaryIO) -> int:
    """Return the size in memory of all arrays in an HDF5 file, in bytes."""
    sizes: list[int] = []
    with h5py.File(file, "r") as stored:
        stored.visititems(lambda _, item: sizes.append(item.nbytes) if isinstance(item, h5py.Dataset) else None)
    return sum(sizes)


def _load_biased(model: tf.keras.Model, path: str) -> bool:
    """Load a file of Keras's own ResNet-50, whose convolutions have biases. Return False if it is not such a file."""
    biased = build_in_stock_layers(model, use_bias=True)
    try:
        biased.load_weights(path)
    except Exception:  # the caller reports why the file does not fit our encoder
        return False
    take_folded_weights(model, biased)
    return True
