"""Finds, checks and loads the native library `lowlevel_simclr/_native.so`.

This module never replaces the library by the stock ops (plain TensorFlow). If the library is missing or wrong, an error
names the command that repairs it. Users who want the stock ops must choose them (`--ops stock`). Platforms for which
there is no library use the stock ops by default (runtime/platform_ops.py).
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
from pathlib import Path
from typing import Any

import tensorflow as tf

from lowlevel_simclr.runtime import platform_ops

# The version of the interface between this Python code and the library. Raise it whenever the ops, their attributes,
# the FFI targets (functions that XLA calls), or the order of inputs and outputs change. setup.py compiles the number
# into the library.
ABI = 5
PATH = platform_ops.LIBRARY
MEND = "Run 'pip install -e .' in the project's folder, or install its wheel again"


class NativeLibraryError(RuntimeError):
    """The native library is missing, was built for another version, or does not load on this machine."""


def read_build_information(path: Path = PATH) -> dict[str, Any]:
    """Return the content of the JSON file that setup.py wrote next to the library.

    The entries are version, abi, cpu, cuda, xla, tensorflow and compiler.

    Args:
        path: path of the library.

    Raises:
        NativeLibraryError: if the library or its JSON file is missing, or if the JSON file cannot be read.
    """
    if not path.exists():
        raise NativeLibraryError(f"The native library {path.name} is missing from {path.parent}. {MEND}.")
    beside = path.with_suffix(".json")
    try:
        return json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NativeLibraryError(f"{beside.name} beside {path.name} cannot be read ({error}). {MEND}.") from error


def check_build(path: Path = PATH) -> None:
    """Check, before anything is loaded, that the library was built for this Python code.

    Args:
        path: path of the library.

    Raises:
        NativeLibraryError: if the library is missing or was built for another version, or if the environment variable
            LOWLEVEL_SIMCLR_ISA names an unknown instruction set.
    """
    build = read_build_information(path)
    abi = build.get("abi")
    if abi != ABI:
        raise NativeLibraryError(f"{path.name} was built for ABI {abi}, but this version needs {ABI}. {MEND}.")
    asked = os.environ.get("LOWLEVEL_SIMCLR_ISA")
    if asked is not None and asked not in build["cpu"]:
        raise NativeLibraryError(f"LOWLEVEL_SIMCLR_ISA is {asked!r}. Set it to {', '.join(build['cpu'])}, or unset it.")


def load_and_check(path: Path) -> Any:
    """Load a library, and check that the ABI number in the library agrees with the one in its JSON file.

    Args:
        path: path of the library.

    Returns:
        A module with one Python function for each op.

    Raises:
        NativeLibraryError: if `check_build` fails, if the library does not load, or if the two ABI numbers differ.
    """
    check_build(path)
    try:
        module = tf.load_op_library(str(path))
        abi = ctypes.CDLL(str(path)).lowlevel_simclr_abi()
    except (tf.errors.OpError, OSError, AttributeError) as error:
        raise NativeLibraryError(
            f"{path.name} does not load with TensorFlow {tf.__version__} ({error}). {MEND}."
        ) from error
    if abi != ABI:
        raise NativeLibraryError(f"{path.name} has ABI {abi}, but the file beside it says {ABI}. {MEND}.")
    return module


@functools.cache
def load_library() -> Any:
    """Return the loaded library, a module with one Python function for each op.

    Raises:
        NativeLibraryError: if the library is missing, wrong, or does not load, or if this platform has no library.
    """
    if not platform_ops.expects_library():
        raise NativeLibraryError(
            f"There is no native library for {platform_ops.describe_platform()}, only for Linux on x86-64, and for "
            "Linux on arm64 if you build it. Use the stock ops."
        )
    return load_and_check(PATH)


def find_instruction_set() -> str:
    """Return the instruction set that the kernels of this process use: avx512, avx2, baseline, or neon on arm64."""
    load_library()
    function = ctypes.CDLL(str(PATH)).lowlevel_simclr_instruction_set
    function.restype = ctypes.c_char_p
    return function().decode()


def read_xla_refusal() -> str:
    """Return why the XLA of this TensorFlow cannot call the library, in one sentence, or "" if it can.

    Call this function only if the library was built with XLA handlers (functions that XLA can call).
    """
    load_library()
    function = ctypes.CDLL(str(PATH)).lowlevel_simclr_xla_refusal
    function.restype = ctypes.c_char_p
    return function().decode()


def count_threads() -> int:
    """Return how many threads the kernels use, including the calling thread."""
    load_library()
    function = ctypes.CDLL(str(PATH)).lowlevel_simclr_threads
    function.restype = ctypes.c_long
    return int(function())
