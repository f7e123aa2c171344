"""Tests the README.md of an exported encoder (model card): Hugging Face's format, accuracies, and example code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lowlevel_simclr.evaluation.formats import card, write
from lowlevel_simclr.evaluation.formats.parity import Parity
from tests.support.exported import make_network, write_run

yaml = pytest.importorskip("yaml", reason="pip install pyyaml")
PARITY = Parity({"h": 2.5e-7}, 1e-5, [(8, 8)])


def make(folder: Path, patch: pytest.MonkeyPatch, name: str = "onnx", **network: object) -> tuple[dict, str]:
    """Write a model card. Return its front matter (the YAML at the top) and its text."""
    write_run(folder, patch)
    given = make_network(patch, **network)
    text = card.make_card(folder, given, write.FORMATS[name], PARITY, "float32", "It lost nothing.")
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_front_matter_is_yaml_that_names_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    front, body = make(tmp_path, monkeypatch)
    assert front["library_name"] == "onnx" and front["pipeline_tag"] == "image-feature-extraction"
    assert "simclr" in front["tags"] and front["license"] == "unknown" and "datasets" not in front
    assert "2.5e-07 (bound 1e-05). It lost nothing." in body and "not evaluated with labels" in body
    assert "uint8, with 3 channels" in body and "h (32 numbers), and the projection z (6 numbers)" in body
    assert "- batch_size: 256" in body and "- temperature: 0.2" in body


def test_accuracies_have_their_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, monkeypatch)
    config = json.loads((tmp_path / "config.json").read_text())
    config["data"]["dataset"] = "cifar10"
    (tmp_path / "config.json").write_text(json.dumps(config))
    results = {"schema": 1, "step": 2, "train_on": "train", "knn": {"20": 0.75, "200": 0.5}, "linear": 0.8125}
    (tmp_path / "evaluation.json").write_text(json.dumps(results))
    text = card.make_card(tmp_path, make_network(monkeypatch), write.FORMATS["keras"], PARITY, "float32", "")
    front = yaml.safe_load(text.split("---\n")[1])
    (result,) = front["model-index"][0]["results"]
    assert front["datasets"] == ["cifar10"] and result["dataset"]["split"] == "test"
    assert {each["name"]: each["value"] for each in result["metrics"]} == {
        "20-NN on the frozen representation": 0.75,
        "logistic regression on the frozen representation": 0.8125,
    }
    assert "81.2" in text or "0.812" in text


@pytest.mark.parametrize("preprocessing", [True, False])
def test_the_example_is_a_program_for_this_input(
    preprocessing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in write.FORMATS:
        _, body = make(tmp_path / name, monkeypatch, name, head=False, preprocessing=preprocessing)
        program = body.split("```python\n")[1].split("```")[0]
        compile(program, name, "exec")
        wanted = "np.zeros((2, 40, 40, 3), np.uint8)" if preprocessing else "np.zeros((2, 8, 8, 3), np.float32)"
        assert wanted in program
        assert preprocessing or "[0.5, 0.4, 0.3]" in body
