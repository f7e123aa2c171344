"""Tests how `pip install` finds the TensorFlow headers that it needs to compile the C++ ops (build_backend.py).

The headers of an installed TensorFlow are used. If TensorFlow is missing, pip is asked to install it for the build.
"""

from __future__ import annotations

import importlib.metadata
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

ROOT = Path(__file__).parents[2]


@pytest.fixture
def backend() -> dict[str, object]:
    pytest.importorskip("setuptools", "77", reason="setuptools 77 is missing (make installs it)")
    return runpy.run_path(str(ROOT / "build_backend.py"))


def test_the_headers_are_those_of_the_installed_tensorflow(backend: dict[str, object]) -> None:
    found = backend["find_headers"]()
    assert found.include == Path(tf.sysconfig.get_include())
    assert importlib.metadata.version("tensorflow") == found.version or found.version == "unknown"
    assert backend["list_requirements"]() == []


def test_a_build_that_pip_isolates_finds_them_too() -> None:
    """Test an isolated build: pip removes the folder of installed packages from Python's path.

    The build must find the headers of the TensorFlow in this folder nevertheless.
    """
    hide = "import sys; sys.path = [each for each in sys.path if 'site-packages' not in each or 'setuptools' in each]; "
    import setuptools

    beside = str(Path(setuptools.__file__).parents[1])
    find = f"import site; sys.path.append({beside!r}); import setuptools.build_meta; sys.path.remove({beside!r}); "
    ask = f"sys.path.insert(0, {str(ROOT)!r}); import build_backend; print(build_backend.find_headers())"
    if Path(tf.__file__).parents[1] not in [Path(each) for each in sys.path if "site-packages" in each][:1]:
        pytest.skip("TensorFlow is installed outside this environment")
    done = subprocess.run([sys.executable, "-c", hide + find + ask], capture_output=True, text=True, check=True)
    assert "Headers(include=" in done.stdout


def test_without_a_tensorflow_the_build_asks_for_one_with_all_headers(
    backend: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    functions = backend["list_requirements"].__globals__
    monkeypatch.setitem(functions, "list_places", lambda: [tmp_path])
    (wanted,) = functions["list_requirements"]()
    assert wanted.startswith("tensorflow") and wanted.endswith(">=2.20")
    for hook in ("get_requires_for_build_wheel", "get_requires_for_build_editable"):
        monkeypatch.setattr(functions["build_meta"], hook, lambda settings: ["other"])
        assert functions[hook]() == ["other", wanted]
