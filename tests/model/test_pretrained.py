"""Tests starting an encoder with pretrained weights: Keras's weights for ImageNet, or a Keras file with weights.

Keras's weights are for BGR images, and the encoder must take RGB images. The encoder's convolutions have no biases, so
those of Keras's convolutions are left out. A failed download must give a clear message.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.config.settings import CAFFE
from lowlevel_simclr.model import encoder
from lowlevel_simclr.model.errors import ModelError
from lowlevel_simclr.model.stock_layers import build_in_stock_layers
from tests.support.odd_files import make_odd_files


def test_a_download_that_fails_names_the_file_and_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = tf.keras.applications.ResNet50

    def offline(**options: Any) -> tf.keras.Model:
        if options.get("weights") == "imagenet":
            raise Exception("URL fetch failure")  # this is what Keras raises if a download fails
        return stock(**options)

    monkeypatch.setattr(tf.keras.applications, "ResNet50", offline)
    with pytest.raises(ValueError, match="resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5 .*put it into .*models"):
        encoder.build_encoder("resnet50", "imagenet", 32, weights="imagenet")


def build_kerass_resnet50() -> tf.keras.Model:
    """Return Keras's ResNet-50, with random biases and moving statistics in place of the initial values."""
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
    """Test that our encoder gives the same output h for an RGB image as Keras's model for the same image in BGR."""
    theirs = build_kerass_resnet50()
    monkeypatch.setattr(encoder, "load_imagenet", lambda: theirs)
    ours = encoder.build_encoder("resnet50", "imagenet", 32, weights="imagenet")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    caffe = tf.keras.applications.resnet50.preprocess_input(pixels.copy())
    red_first = (pixels / 255 - np.float32(CAFFE["input_mean"])) / np.float32(CAFFE["input_std"])
    wanted = theirs(caffe, training=False).numpy()
    assert np.abs(ours(red_first, training=False).numpy() - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert np.abs(ours(red_first[..., ::-1], training=False).numpy() - wanted).max() > 1e-2 * np.abs(wanted).max()


def views(size: int, count: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, size, size, 3)).astype(np.float32)


def test_a_file_of_kerass_resnet50_is_taken_without_its_biases(tmp_path: Path) -> None:
    """Test that h stays the same if the biases of the convolutions are left out. A BatchNorm follows each convolution.

    In training, BatchNorm subtracts the mean, and a bias is a part of the mean. For inference, each bias is subtracted
    from BatchNorm's moving mean when the file is read.
    """
    file, theirs = str(tmp_path / "keras.weights.h5"), build_kerass_resnet50()
    theirs.save_weights(file)
    ours = encoder.build_encoder("resnet50", "imagenet", 32, weights=file)
    assert not any(layer.use_bias for layer in ours.layers if isinstance(layer, tf.keras.layers.Conv2D))
    for training, size in ((False, 2), (True, 32)):
        wanted = theirs(views(32, size), training=training).numpy()
        found = ours(views(32, size), training=training).numpy()
        assert np.abs(found - wanted).max() <= 1e-3 * np.abs(wanted).max(), training


# Files that are not weights


def save_weights(path: Path, spoil: bool = False) -> None:
    """Save the weights of a ResNet-20 that is built from Keras's own layers. With `spoil`, one weight is NaN."""
    twin = encoder.build_encoder("resnet20", "cifar", 8)
    stock = build_in_stock_layers(twin)
    weights = twin.get_weights()
    if spoil:
        weights[0][0, 0, 0, 0] = np.nan
    stock.set_weights(weights)
    stock.save_weights(path)


def write_other_hdf5(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["numbers"] = np.arange(10)


def cut_weights(path: Path) -> None:
    save_weights(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


NO_WEIGHTS = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("weights"),
    "a folder": lambda path: path.mkdir(),
    "a FIFO": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "another HDF5 file": write_other_hdf5,
    "cut": cut_weights,
    "NaN": lambda path: save_weights(path, spoil=True),
}


@pytest.mark.parametrize("make", NO_WEIGHTS.values(), ids=NO_WEIGHTS)
def test_a_file_that_is_no_weights_is_named(tmp_path: Path, make: Callable[[Path], object]) -> None:
    file = tmp_path / "encoder.weights.h5"
    make(file)
    with pytest.raises(ModelError, match="encoder.weights.h5"):
        encoder.build_encoder("resnet20", "cifar", 8, weights=str(file))


def test_weights_of_another_encoder_are_named_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "encoder.weights.h5"
    save_weights(file)
    with pytest.raises(ModelError, match="do not fit resnet18") as refused:
        encoder.build_encoder("resnet18", "cifar", 8, weights=str(file))
    assert "\n" not in str(refused.value)
    encoder.build_encoder("resnet20", "cifar", 8, weights=str(file))


# Files that would block the program or fill its memory


def load_into(path: Path) -> None:
    encoder.build_encoder("resnet20", "cifar", 32, weights=str(path))


def test_weights_that_are_no_regular_file_are_refused(tmp_path: Path) -> None:
    for name, reason in make_odd_files(tmp_path, ".weights.h5").items():
        with pytest.raises(ValueError, match=f"The weights in '.*{name}' cannot be read: {reason}"):
            load_into(tmp_path / name)


@pytest.mark.parametrize("in_archive", [False, True])
def test_weights_that_unpack_to_too_much_are_refused(tmp_path: Path, in_archive: bool) -> None:
    """Test an HDF5 array of 8 TB that has no data yet. It takes no room in the file, but it would fill the memory."""
    path = tmp_path / "bomb.weights.h5"
    with h5py.File(path, "w") as stored:
        stored.create_dataset("vars/0", (10**6, 10**6), np.float64, chunks=(1000, 1000), compression="gzip")
    if in_archive:
        with zipfile.ZipFile(tmp_path / "bomb.keras", "w") as archive:
            archive.write(path, "model.weights.h5")
        path = tmp_path / "bomb.keras"
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match="take 8000000000000 bytes, more than LARGEST_WEIGHTS .4294967296 bytes."):
        load_into(path)


@pytest.mark.parametrize("content", [b"", b"not HDF5", b"PK\3\4 cut off"])
def test_weights_that_are_damaged_are_told_by_keras(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "damaged.weights.h5").write_bytes(content)
    with pytest.raises(ValueError, match="The weights in '.*damaged.weights.h5' do not fit resnet20"):
        load_into(tmp_path / "damaged.weights.h5")
