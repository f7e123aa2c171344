"""Reads the versions of the software that a bench measures. Every stored result records them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from lowlevel_simclr.ops import _library


def read_native_versions() -> dict[str, Any]:
    """Return the versions of TensorFlow and the native library, the library's instruction set and its thread count."""
    found: dict[str, Any] = {"tensorflow": tf.__version__, "library": _library.read_build_information()}
    return found | {"instruction_set": _library.find_instruction_set(), "threads": _library.count_threads()}


def read_package_versions(names: Sequence[str]) -> dict[str, str]:
    """Return the version of each of these packages. Packages that are not installed are left out."""
    return {name: importlib.metadata.version(name) for name in names if importlib.util.find_spec(name)}
