"""The versions that a bench measured, for its stored result."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from lowlevel_simclr.ops import _library


def read_native_versions() -> dict[str, Any]:
    """Return the versions of TensorFlow and of the native library, its instruction set and its number of threads."""
    found: dict[str, Any] = {"tensorflow": tf.__version__, "library": _library.read_build_information()}
    return found | {"instruction_set": _library.find_instruction_set(), "threads": _library.count_threads()}


def read_package_versions(names: Sequence[str]) -> dict[str, str]:
    """Return the version of each of these packages that is installed."""
    return {name: importlib.metadata.version(name) for name in names if importlib.util.find_spec(name)}
