"""Tests that older releases of Keras 3 can load encoder.keras.

An older release does not know every argument of a layer. So the file must leave out each argument that has its default
value.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.data.transform import PixelScaling
from lowlevel_simclr.evaluation import export
from lowlevel_simclr.model import encoder
from lowlevel_simclr.runtime import keras

pytestmark = pytest.mark.skipif(keras.find_keras_generation() == 2, reason="Keras 2 has one release, 2.15")

# The releases of Keras that pip installs with TensorFlow 2.16 and later. 3.12 is the last one for Python 3.10.
RELEASES = ("3.4.1", "3.6.0", "3.8.0", "3.10.0", "3.12.0", "3.14.0")
LOADED_BY = """
import sys
sys.modules["lowlevel_simclr"] = None
import keras, numpy as np, tensorflow as tf
assert keras.__version__ == sys.argv[1], keras.__version__
model = tf.keras.models.load_model(sys.argv[2])
np.save(sys.argv[4], model.predict(np.load(sys.argv[3]), verbose=0))
"""


def save_small_encoder(folder: Path) -> tuple[Path, tf.keras.Model]:
    f = encoder.build_encoder("resnet20", "cifar", 8)
    model = export.add_preprocessing(f, PixelScaling((0.5,) * 3, (0.25,) * 3))
    return export.save_encoder(folder, model), model


def find_configs(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every part of a .keras file's config.json that describes a Keras object."""
    if isinstance(value, list):
        for each in value:
            yield from find_configs(each)
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for each in value.values():
            yield from find_configs(each)


def test_no_argument_that_a_later_release_added_is_in_the_file(tmp_path: Path) -> None:
    path, model = save_small_encoder(tmp_path)
    with zipfile.ZipFile(path) as archive:
        found = list(find_configs(json.loads(archive.read("config.json"))))
    kinds = {each["class_name"] for each in found}
    assert {"BatchNormalization", "Conv2D", "Matmul", "Cumsum"} <= kinds and not kinds & {"HeNormal", "DTypePolicy"}
    for each in found:
        given = set(each["config"])
        assert not given & {"renorm", "renorm_momentum", "quantization_config", "optional", "input_axes"}, each
        assert each["class_name"] not in ("Matmul", "Cumsum") or not given & {"name", "dtype"}, each
    images = np.random.default_rng(0).integers(0, 256, (3, 11, 13, 3), np.uint8)
    loaded = tf.keras.models.load_model(path)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
def test_other_releases_of_keras_3_load_the_file(release: str, tmp_path: Path) -> None:
    """Test each release in RELEASES. pip installs it next to this TensorFlow."""
    path, model = save_small_encoder(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (3, 11, 13, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "keras")]
    subprocess.run([*pip, f"keras=={release}"], check=True)
    given = [release, str(path), str(tmp_path / "images.npy"), str(tmp_path / "h.npy")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "keras")}
    done = subprocess.run(
        [sys.executable, "-c", LOADED_BY, *given], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = model.predict(images, verbose=0)
    assert np.abs(np.load(tmp_path / "h.npy") - expected).max() <= 1e-5 * np.abs(expected).max()
