"""Tests how the native library registers its functions with XLA, for releases of XLA that are not installed.

A function that XLA calls is a handler. The tests compile a C++ program (driver) from kernels/glue/ffi_runtime_xla.cc
and an imitation of XLA. `tests/bench/test_tensorflow_versions.py` (slow) installs real releases of TensorFlow.
"""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from pathlib import Path

import pytest
import tensorflow as tf

GLUE = Path(__file__).parents[2] / "kernels" / "glue"
INCLUDE = Path(tf.sysconfig.get_include())
pytestmark = pytest.mark.skipif(
    not (INCLUDE / "xla" / "ffi" / "api" / "ffi.h").exists(), reason="this TensorFlow has no headers of XLA's FFI"
)
# Four numbers for each release of XLA: the minor version of its interface, and the sizes in bytes of three C structs.
# These are its table of functions, the arguments of a registration, and the arguments of reading an error message.
RELEASES = [(1, 88, 84, 32), (1, 192, 84, 32), (2, 192, 84, 32), (4, 200, 92, 36)]


@functools.cache
def build_driver(*entries: str) -> Path:
    """Compile the driver, with an imitated XLA that exports these entries. Return its path.

    An entry is a function that returns XLA's table of functions. XLA may export "C", "CPP" or both.
    """
    made = Path(tempfile.mkdtemp()) / "driver"
    macros = [f"-DLOWLEVEL_SIMCLR_ENTRY_{entry}" for entry in entries]
    sources = [GLUE / "ffi_runtime_xla.cc", GLUE / "ffi_runtime_test_driver.cc"]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-sanitize=nonnull-attribute"]
    command = ["g++", "-std=c++17", "-O1", *sanitizers, f"-isystem{INCLUDE}", *macros, *sources, "-o", made]
    subprocess.run([str(word) for word in command], check=True)
    return made


def run_driver(entries: tuple[str, ...], major: int, minor: int, table: int, entry: str = "c") -> str:
    """Run the driver with an XLA of this version and a table of functions of `table` bytes. Return what it prints."""
    command = [str(build_driver(*entries)), entry, str(major), str(minor), str(table)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    "entries, taken",
    [(("C",), "XLA_FFI_GetApi"), (("CPP",), "GetXlaFfiApi"), (("C", "CPP"), "XLA_FFI_GetApi")],
    ids=["c", "cpp", "both"],
)
def test_the_entry_that_is_exported_is_taken(entries: tuple[str, ...], taken: str) -> None:
    said = run_driver(entries, 0, 2, 192)
    assert re.findall("entry (.*)", said) == [taken] and "registered yes" in said


@pytest.mark.parametrize("minor, table, register_args, _", RELEASES)
def test_each_release_gets_its_own_version_and_sizes(minor: int, table: int, register_args: int, _: int) -> None:
    said = run_driver(("C",), 0, minor, table)
    assert f"register some_op for Host, {register_args} bytes" in said and "behind the handlers zero" in said
    assert f"answers 0.{minor}, traits 0, memory behind whole" in said
    assert "called with our table, ctx 0x77" in said
    assert "refusal \n" in said


def test_a_newer_release_gets_the_newest_known_version() -> None:
    assert "answers 0.4," in run_driver(("C",), 0, 9, 400)


@pytest.mark.parametrize("minor, table, _, message_args", RELEASES)
def test_a_refusal_to_register_is_kept_and_its_error_destroyed(
    minor: int, table: int, _: int, message_args: int
) -> None:
    said = run_driver(("C",), 0, minor, table, entry="refuse")
    assert f"message asked with {message_args} bytes" in said and "error destroyed" in said
    assert "registered no" in said
    assert "refusal XLA refuses some_op for the platform Host: this handler is too new" in said


@pytest.mark.parametrize(
    "major, minor, table, refusal",
    [
        (0, 0, 64, "The XLA FFI of this TensorFlow is older than version 0.1, the oldest one that the library knows."),
        (1, 0, 192, "The XLA FFI of this TensorFlow has version 1.0. The library knows versions 0.1 to 0.4."),
        (0, 0, 192, "The XLA FFI of this TensorFlow has version 0.0. The library knows versions 0.1 to 0.4."),
    ],
)
def test_an_unknown_interface_is_refused_and_never_called(major: int, minor: int, table: int, refusal: str) -> None:
    said = run_driver(("C",), major, minor, table)
    assert f"refusal {refusal}" in said and "register some_op" not in said


def test_without_an_entry_there_is_a_sentence() -> None:
    assert "refusal This TensorFlow exports no entry to XLA's FFI." in run_driver((), 0, 2, 192)
