"""Tests the program `export`, which writes a trained encoder in other formats, such as ONNX.

The program must print how much the outputs h of the exported file differ from those of the encoder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import lowlevel_simclr as ls
from lowlevel_simclr import export
from lowlevel_simclr.evaluation.export import add_preprocessing, save_encoder
from tests.support.exported import SCALING, build_networks, write_run


def test_the_command_writes_a_folder_and_prints_the_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run = write_run(tmp_path / "run", monkeypatch)
    assert export.main([str(run), "--format", "saved_model", "--with-projection-head"]) == 0
    out = run / "export" / "saved_model"
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("saved_model: largest difference on 64 images") and said[1] == f"Wrote {out}"
    served = tf.saved_model.load(str(out))
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), np.uint8)
    found = served.signatures["serving_default"](tf.constant(images))
    for name in ("h", "z"):
        expected = ls.embed(run, images, output=name)
        assert np.abs(found[name].numpy() - expected).max() <= 1e-5 * np.abs(expected).max()
    assert export.main([str(run), "--format", "saved_model"]) == 1
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"format": "onyx"}, "There is no format 'onyx'. Use one of keras, saved_model, onnx, litert"),
        ({"format": "keras", "weights": "int8"}, "format keras has float32 weights, not int8. Leave --weights out"),
        ({"format": "litert", "weights": "int4"}, "no weights of the type 'int4'. Use one of float32"),
        ({"format": "keras", "preprocessing": False, "image_size": 8}, "Leave --image-size out"),
        ({"format": "keras", "image_size": 0}, "image size is 0. Give at least 1"),
    ],
)
def test_an_impossible_argument_is_refused(settings: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(ls.ConfigError, match=words):
        ls.export(tmp_path, **settings)


def test_a_folder_without_a_run_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ls.RunError):
        ls.export(tmp_path, "keras")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore")  # DeprecationWarnings of TensorFlow
def test_the_loss_of_accuracy_is_printed_and_stands_in_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("ai_edge_litert", reason="pip install ai-edge-litert")
    monkeypatch.setattr("lowlevel_simclr.data.catalog.SHAPES_TRAIN", 60)
    monkeypatch.setattr("lowlevel_simclr.data.catalog.SHAPES_TEST", 40)
    run = write_run(tmp_path / "run", monkeypatch)
    (run / "data.json").write_text('{"shape": [32, 32, 3]}')
    out = ls.export(run, "litert", weights="int8")
    (sentence,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("20-NN on 40 test images")]
    assert "with int8 weights." in sentence and sentence in (out / "README.md").read_text()


@pytest.mark.filterwarnings("ignore")  # DeprecationWarnings of TensorFlow and NumPy
@pytest.mark.skipif(not hasattr(tf.keras, "ops"), reason="Keras 2 does not export to ONNX")
def test_kerass_own_onnx_export_of_the_loaded_encoder_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="pip install tf2onnx onnx onnxruntime")
    run = write_run(tmp_path / "run", monkeypatch)
    f, _ = build_networks()
    save_encoder(run, add_preprocessing(f, SCALING))
    ls.load_encoder(run).export(str(tmp_path / "f.onnx"), format="onnx", verbose=False)
    session = runtime.InferenceSession(str(tmp_path / "f.onnx"), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 15, 3), np.uint8)
    (found,) = session.run(None, {session.get_inputs()[0].name: images.astype(np.float32)})
    expected = ls.embed(run, images)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
