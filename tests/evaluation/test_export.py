"""Tests encoder.keras, the file that users load: it must give the outputs h that evaluation computes.

It must do so on machines without this package.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.data.transform import PixelScaling
from lowlevel_simclr.evaluation import export, represent
from lowlevel_simclr.model import encoder
from lowlevel_simclr.run import atomic, checkpoint
from lowlevel_simclr.runtime import keras
from lowlevel_simclr.runtime.precision import set_precision
from tests.support.small_runs import narrow_resnet20

# A program of a user who has only TensorFlow. Its third line makes each import of this package fail.
ALONE = """
import sys
sys.modules["lowlevel_simclr"] = None
import numpy as np, tensorflow as tf
model = tf.keras.models.load_model(sys.argv[1])
images = np.load(sys.argv[2])
np.save(sys.argv[3], model.predict(images, verbose=0))
np.save(sys.argv[4], model(images.astype(np.float32)).numpy())
"""


@pytest.fixture(autouse=True)
def small_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build ResNet-20 with one block in each stage."""
    narrow_resnet20(monkeypatch)


def trained(size: int, channels: int = 3, precision: str = "float32") -> tf.keras.Model:
    """Return a resnet20 as after some training: the weights of BatchNorm do not have their initial values."""
    set_precision(precision)
    f = encoder.build_encoder("resnet20", "cifar", size, channels)
    random = np.random.default_rng(0)
    f.set_weights([weight + (weight.ndim == 1) * random.uniform(0, 0.1, weight.shape) for weight in f.get_weights()])
    return f


def images(size: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (5, size, size, channels), np.uint8)


def alone(folder: Path, file: Path, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute h in a process that has only TensorFlow. Return h from `predict` on uint8, and from a call on float32."""
    np.save(folder / "images.npy", given)
    paths = [file, folder / "images.npy", folder / "predicted.npy", folder / "called.npy"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", ALONE, *map(str, paths)]
    said = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    return np.load(paths[2]), np.load(paths[3])


def assert_same_h(found: np.ndarray, expected: np.ndarray) -> None:
    """Assert that in each row of h, two results differ by at most 1e-5 of the largest number in the row."""
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert np.all(np.abs(found - expected) <= 1e-5 * np.abs(expected).max(axis=1, keepdims=True))
    assert expected.std() > 0


def test_the_file_opens_without_this_package_and_agrees_with_the_evaluation(tmp_path: Path) -> None:
    mean, std = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    f, given = trained(8), images(13)
    file = export.save_encoder(tmp_path, export.add_preprocessing(f, PixelScaling(mean, std)))
    assert file == tmp_path / "encoder.keras" and [path.name for path in tmp_path.iterdir()] == ["encoder.keras"]
    expected = represent.compute_h(f, given, PixelScaling(mean, std))
    for found in alone(tmp_path, file, given):
        assert_same_h(found, expected)


@pytest.mark.parametrize(
    ("seen", "size", "channels", "scaling"),
    [
        (8, 8, 3, (None, None)),
        (8, 8, 1, ((0.5,), (0.5,))),
        (6, 8, 3, (None, (0.5,) * 3)),
        (9, 8, 3, ((0.1,) * 3, None)),
    ],
)
def test_h_is_that_of_the_test_transform(seen: int, size: int, channels: int, scaling: tuple) -> None:
    f, given = trained(size, channels), images(seen, channels)
    model = export.add_preprocessing(f, PixelScaling(*scaling))
    assert_same_h(model.predict(given, verbose=0), represent.compute_h(f, given, PixelScaling(*scaling), 256))


def test_an_encoder_of_half_precision_is_exported_in_float32() -> None:
    half, given = trained(8, precision="bfloat16"), images(8)
    model = export.add_preprocessing(half)
    whole = trained(8)
    whole.set_weights(half.get_weights())
    assert_same_h(model.predict(given, verbose=0), represent.compute_h(whole, given))
    assert {tf.as_dtype(variable.dtype) for variable in model.variables} == {tf.float32}


def test_every_layer_is_kerass_own() -> None:
    def every(model: tf.keras.Model) -> Iterator[object]:
        for layer in model.layers:
            yield from every(layer) if isinstance(layer, tf.keras.Model) else [layer]

    homes = {type(layer).__module__.split(".")[0] for layer in every(export.add_preprocessing(trained(8)))}
    assert homes == {"keras"}


def test_what_cannot_be_written_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "encoder.keras").write_bytes(b"older")

    class Full:
        def save(self, path: Path) -> None:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(atomic.RunError, match="No space left on device. Free some disk space"):
        export.save_encoder(tmp_path, Full())
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("encoder.keras", b"older")]


def test_weights_come_from_the_newest_checkpoint(tmp_path: Path) -> None:
    f, other = trained(8), encoder.build_encoder("resnet20", "cifar", 8, seed=9)
    arrays = {name: variable.numpy() for name, variable in keras.name_variables("encoder", f).items()}
    checkpoint.save(tmp_path / "checkpoints", 12, arrays, {}, 1)
    assert export.restore_weights(tmp_path, encoder=other) == 12
    assert represent.hash_weights(other) == represent.hash_weights(f)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ('{"steps": 100}', "warning: The training has not ended: these are the weights of step 12 of 100.\n"),
        ('{"steps": 12}', ""),
        ("{}", ""),
        ("no JSON", ""),
    ],
)
def test_a_run_that_has_not_ended_is_told(
    environment: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Test a training that was stopped at step 5 of 100. Evaluation and export must print a line about this."""
    f = trained(8)
    arrays = {name: variable.numpy() for name, variable in keras.name_variables("encoder", f).items()}
    checkpoint.save(tmp_path / "checkpoints", 12, arrays, {}, 1)
    (tmp_path / "environment.json").write_text(environment)
    export.restore_weights(tmp_path, encoder=f)
    assert capsys.readouterr().err == said


def test_no_checkpoint_or_one_of_another_model_is_refused(tmp_path: Path) -> None:
    f = trained(8)
    with pytest.raises(atomic.RunError, match="has no checkpoint yet. Train for at least"):
        export.restore_weights(tmp_path, encoder=f)
    checkpoint.save(tmp_path / "checkpoints", 1, {"encoder/000/other": np.zeros(3)}, {}, 1)
    with pytest.raises(atomic.RunError, match="does not fit its config.json"):
        export.restore_weights(tmp_path, encoder=f)


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_stays_frozen_or_trains_in_fit_as_the_user_says(frozen: bool, tmp_path: Path) -> None:
    path = export.save_encoder(tmp_path, export.add_preprocessing(trained(8)))
    loaded = tf.keras.models.load_model(path)
    pictures = tf.keras.Input((8, 8, 3), dtype="uint8")
    model = tf.keras.Model(pictures, tf.keras.layers.Dense(2)(loaded(pictures)))
    for layer in loaded.layers[-1].layers:
        if frozen and isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.trainable = False
    model.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = {name: variable.numpy() for name, variable in keras.name_variables("", loaded).items()}
    model.fit(images(8), np.arange(5) % 2, verbose=0)
    moved = {
        name for name, variable in keras.name_variables("", loaded).items() if np.any(variable.numpy() != before[name])
    }
    assert any("kernel" in name for name in moved)
    assert any("moving_mean" in name for name in moved) is not frozen
