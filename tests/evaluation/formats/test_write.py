"""Tests the export of an encoder to every format (Keras, ONNX, PyTorch, ...).

Each file must give the same outputs h as the encoder. A file with other outputs must be deleted.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from lowlevel_simclr.config.choices import EXPORT_FORMATS
from lowlevel_simclr.evaluation.formats import write
from lowlevel_simclr.evaluation.formats.form import ExportError
from tests.support.exported import make_network

# Each case: format, whether with projection head, whether with preprocessing, size of the images (None: any), number
# type of the weights, and a file that must exist.
CASES = [
    ("keras", True, True, None, "float32", "encoder.keras"),
    ("saved_model", True, False, None, "float32", "saved_model.pb"),
    ("onnx", True, True, None, "float32", "encoder.onnx"),
    ("onnx", False, False, 11, "float32", "encoder.onnx"),
    ("litert", True, True, None, "float32", "encoder.tflite"),
    ("litert", False, True, 11, "int8", "encoder.tflite"),
    ("litert", False, False, None, "float16", "encoder.tflite"),
    ("pytorch", True, True, None, "float32", "encoder.safetensors"),
]


def test_every_format_is_tested() -> None:
    assert {case[0] for case in CASES} == set(write.FORMATS) == set(EXPORT_FORMATS)


@pytest.mark.parametrize(
    ("name", "head", "preprocessing", "size", "weights", "file"),
    # tests/programs/test_export.py exports a SavedModel too.
    [pytest.param(*case, marks=pytest.mark.slow) if case[0] == "saved_model" else case for case in CASES],
)
@pytest.mark.filterwarnings("ignore")  # DeprecationWarnings of TensorFlow and NumPy
def test_the_files_give_the_same_h(
    name: str, head: bool, preprocessing: bool, size: int | None, weights: str, file: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Test that the export succeeds. `write_export` itself compares the outputs, and raises an error if they differ.

    On Linux and macOS, the name of the folder is not UTF-8. Once, TensorFlow could not save there.
    """
    if any(importlib.util.find_spec(module) is None for module in write.FORMATS[name].modules):
        pytest.skip(f"pip install {write.FORMATS[name].install}")
    network = make_network(monkeypatch, head, preprocessing, size if preprocessing else None)
    out = tmp_path / (os.fsdecode(b"\xff") if os.name == "posix" else "some") / "exported"
    found = write.write_export(network, name, out, weights, lambda form, folder, parity: f"{form.title} {folder.name}")
    assert set(found.largest) == set(network.output_names) and max(found.largest.values()) <= found.bound
    assert (out / file).is_file() and (out / "README.md").read_text().startswith(write.FORMATS[name].title)
    assert [path.name for path in out.parent.iterdir()] == ["exported"]


def test_a_file_with_another_h_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network(monkeypatch, head=False)
    zeros = "def represent(given):\n    return {'h': np.zeros((len(given), 32), np.float32)}\n"
    form = write.FORMATS["keras"]._replace(write=lambda _, folder, __: (folder / "file").touch(), reader=zeros)
    monkeypatch.setitem(write.FORMATS, "keras", form)
    with pytest.raises(ExportError, match=r"does not give the h of the run: .*h: 1.0e\+00 \(bound 1e-05\)"):
        write.write_export(network, "keras", tmp_path / "out", "float32", lambda *_: "card")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form = write.FORMATS["onnx"]._replace(modules=("json", "none_such", "none_other"))
    monkeypatch.setitem(write.FORMATS, "onnx", form)
    with pytest.raises(
        ExportError, match="with none_such and none_other, .* Run 'pip install tf2onnx onnx onnxruntime'"
    ):
        write.refuse_early("onnx", tmp_path / "out")
    with pytest.raises(ExportError, match="pip install"):
        write.write_export(make_network(monkeypatch), "onnx", tmp_path / "out", "float32", lambda *_: "")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    for out in (tmp_path, tmp_path / "mine"):
        with pytest.raises(ExportError, match="exists already. Remove it, or choose another folder with --out"):
            write.refuse_early("keras", out)
    (tmp_path / "empty").mkdir()
    write.refuse_early("keras", tmp_path / "empty")
