"""Tests loading the native library, the compiled C++ ops of this package.

An error must name what is missing or wrong, and the command that repairs it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr import ops, reference
from lowlevel_simclr.ops import _library, _route
from tests.support.other_process import output_of

ROOT = Path(__file__).parents[2]


def copy_of_library(folder: Path, **changed: object) -> Path:
    """Copy the library and the JSON file that describes it. Set the entries `changed` in the copy of the JSON file."""
    path = folder / "_native.so"
    shutil.copy(_library.PATH, path)
    path.with_suffix(".json").write_text(json.dumps(_library.read_build_information() | changed), encoding="utf-8")
    return path


def test_the_library_is_there_and_says_what_it_is() -> None:
    built = _library.read_build_information()
    assert built["abi"] == _library.ABI
    assert _library.find_instruction_set() in built["cpu"]
    assert _library.count_threads() >= 1


def test_a_missing_library_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(_library.NativeLibraryError, match="missing.*pip install -e"):
        _library.check_build(tmp_path / "_native.so")


def test_missing_information_names_the_command(tmp_path: Path) -> None:
    path = copy_of_library(tmp_path)
    path.with_suffix(".json").write_text("{", encoding="utf-8")
    with pytest.raises(_library.NativeLibraryError, match="_native.json.*cannot be read.*pip install"):
        _library.check_build(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(_library.NativeLibraryError, match="cannot be read.*pip install"):
        _library.check_build(path)


def test_another_abi_is_refused_before_loading(tmp_path: Path) -> None:
    path = copy_of_library(tmp_path, abi=_library.ABI + 1)
    with pytest.raises(_library.NativeLibraryError, match=f"ABI {_library.ABI + 1}.*needs {_library.ABI}.*pip install"):
        _library.load_and_check(path)


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    path = copy_of_library(tmp_path)
    path.write_bytes(b"not a library")
    with pytest.raises(_library.NativeLibraryError, match="does not load.*pip install"):
        _library.load_and_check(path)


def test_a_library_that_disagrees_with_its_information_is_refused(tmp_path: Path) -> None:
    """Test a library whose version (ABI) differs from the one in its JSON file.

    The library is loaded in a separate process, because this process has already registered the ops of another copy.
    """
    path = copy_of_library(tmp_path, abi=_library.ABI + 1)
    program = f"""
from pathlib import Path
from lowlevel_simclr.ops import _library
_library.ABI += 1
_library.load_and_check(Path({str(path)!r}))
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 1
    assert re.search("NativeLibraryError: .*has ABI .*but the file beside it says", ended.stderr)


def test_an_unknown_instruction_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWLEVEL_SIMCLR_ISA", "sse9")
    with pytest.raises(_library.NativeLibraryError, match="'sse9'.*avx2"):
        _library.check_build()


@pytest.fixture()
def asked_anew() -> Iterator[None]:
    """Forget the stored answer to "Can XLA call the library?", before and after the test."""
    _route.find_route_problem.cache_clear()
    yield
    _route.find_route_problem.cache_clear()


def test_a_build_without_xla_says_so(monkeypatch: pytest.MonkeyPatch, asked_anew: None) -> None:
    monkeypatch.setattr(_library, "read_build_information", lambda: {"xla": False})
    why_not = _route.find_route_error()
    assert why_not is not None and "without XLA handlers" in why_not and "2.18 or later" in why_not


def test_an_xla_that_the_library_does_not_know_is_a_sentence_without_a_test_call(
    monkeypatch: pytest.MonkeyPatch, asked_anew: None
) -> None:
    monkeypatch.setattr(_library, "read_build_information", lambda: {"xla": True})
    monkeypatch.setattr(_library, "read_xla_refusal", lambda: "The XLA FFI has version 7.0.")
    monkeypatch.setattr(_route, "_test_route", lambda: pytest.fail("XLA was called, which may crash"))
    why_not = _route.find_route_error()
    assert why_not is not None and f"has version 7.0 (TensorFlow {tf.__version__})." in why_not
    with pytest.raises(_route.XlaRouteError, match=r"version 7\.0.*Turn jit_compile off.*--ops stock.*2\.18 or later"):
        _route.call_handler("lowlevel_simclr_nt_xent", [], [])


# The effects of `import lowlevel_simclr.ops`


class Loss(tf.Module):
    """A model with a native op."""

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])
    def __call__(self, z: tf.Tensor) -> tf.Tensor:
        return ops.nt_xent(z, 0.5)


LOAD = """
import tensorflow as tf
try:
    tf.saved_model.load({folder!r})
except Exception as error:
    print(str(error).splitlines()[0])
import lowlevel_simclr.ops
loss = tf.saved_model.load({folder!r})
print(float(tf.reduce_sum(loss(tf.eye(4)))))
"""


def test_a_saved_model_with_an_op_loads_in_a_process_that_imports_the_ops(tmp_path: Path) -> None:
    """Test loading in a process that first has only TensorFlow, and then imports the ops."""
    folder = str(tmp_path / "model")
    tf.saved_model.save(Loss(), folder)
    expected = float(np.sum(reference.nt_xent(np.eye(4), 0.5)))
    refused, loaded = output_of(LOAD.format(folder=folder)).splitlines()
    assert "Op type not registered 'LowlevelSimclr>NtXent" in refused
    assert float(loaded) == pytest.approx(expected, rel=1e-6)


def test_without_a_usable_library_stock_works_and_a_native_op_says_why() -> None:
    """Test a library that cannot be loaded, because an environment variable asks for an unknown instruction set."""
    program = """
import tensorflow as tf
from lowlevel_simclr import ops, stock
print(float(tf.reduce_sum(stock.nt_xent(tf.eye(4), 0.5))))
try:
    ops.nt_xent(tf.eye(4), 0.5)
except ops._library.NativeLibraryError as error:
    print(error)
"""
    value, error = output_of(program, LOWLEVEL_SIMCLR_ISA="sse2").splitlines()
    assert float(value) > 0 and error.startswith("LOWLEVEL_SIMCLR_ISA is 'sse2'")
