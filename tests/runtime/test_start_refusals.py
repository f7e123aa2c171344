"""Tests that a program ends with an error message, before it imports TensorFlow, if TensorFlow could not start."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from lowlevel_simclr.runtime import start_refusals
from lowlevel_simclr.runtime.start_refusals import StartError

INFINITY = resource.RLIM_INFINITY


@pytest.fixture(autouse=True)
def keras_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda package: "3.11.2")


@pytest.mark.parametrize("backend", ["torch", "jax", "nonsense", ""])
def test_another_backend_is_refused(tmp_path: Path, backend: str) -> None:
    with pytest.raises(StartError, match=f"KERAS_BACKEND is '{backend}'.*with KERAS_BACKEND=tensorflow"):
        start_refusals.refuse_other_backend({"KERAS_BACKEND": backend, "KERAS_HOME": str(tmp_path)})


def test_another_backend_in_the_file_of_keras_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "jax"}))
    with pytest.raises(StartError, match="keras.json is 'jax'"):
        start_refusals.refuse_other_backend({"KERAS_HOME": str(tmp_path)})
    (tmp_path / ".keras").mkdir()
    (tmp_path / "keras.json").rename(tmp_path / ".keras" / "keras.json")
    with pytest.raises(StartError, match="keras.json is 'jax'"):
        start_refusals.refuse_other_backend({"HOME": str(tmp_path)})
    start_refusals.refuse_other_backend({"HOME": str(tmp_path), "KERAS_BACKEND": "tensorflow"})


@pytest.mark.parametrize("text", ["", "[", "[1]", '{"backend": 3}', "{}", "[" * 100_000, '{"backend": "tensorflow"}'])
def test_any_other_file_of_keras_is_left_to_keras(tmp_path: Path, text: str) -> None:
    (tmp_path / "keras.json").write_text(text)
    assert start_refusals.refuse_other_backend({"KERAS_HOME": str(tmp_path)}) is None  # it must not raise an error


def test_keras_2_ignores_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    start_refusals.refuse_other_backend({"KERAS_BACKEND": "jax", "TF_USE_LEGACY_KERAS": "1"})
    monkeypatch.setattr("importlib.metadata.version", lambda package: "2.15.0")
    assert start_refusals.refuse_other_backend({"KERAS_BACKEND": "jax"}) is None


def test_a_small_address_space_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    least = start_refusals.LEAST_ADDRESS_SPACE
    for limit in (INFINITY, least):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, limit=limit: (limit, INFINITY))
        start_refusals.refuse_small_address_space()
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1_024_000_000, INFINITY))
    with pytest.raises(StartError, match="only 1000000 KiB of address space .ulimit -v.*unlimited"):
        start_refusals.refuse_small_address_space()
