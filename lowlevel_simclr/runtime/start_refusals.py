"""Checks whether TensorFlow can start here. Otherwise TensorFlow could end the process with no clear message."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

KERAS_BACKEND = "KERAS_BACKEND"
# Bytes. TensorFlow reserves 2.0 GB after its first op on two cores, and the smallest training run takes more.
LEAST_ADDRESS_SPACE = 3 * 2**30


class StartError(Exception):
    """TensorFlow cannot start. The message is for the user."""


def refuse_other_backend(environment: Mapping[str, str] = os.environ) -> None:
    """Check that Keras runs on TensorFlow. With another backend, importing Keras ends in a RecursionError.

    Args:
        environment: the environment variables.

    Raises:
        StartError: if KERAS_BACKEND or Keras's configuration file names another backend.
    """
    if not _is_keras_3(environment):
        return
    backend, where = environment.get(KERAS_BACKEND), KERAS_BACKEND
    if backend is None:
        file = find_keras_folder(environment) / "keras.json"
        backend, where = _read_backend(file), f'"backend" in {file}'
    if backend not in (None, "tensorflow"):
        raise StartError(
            f"{where} is {backend!r}, but this package needs Keras on TensorFlow. Run the same command with "
            f"{KERAS_BACKEND}=tensorflow."
        )


def find_keras_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder of Keras's configuration file: $KERAS_HOME, by default ~/.keras."""
    home = Path(environment.get("HOME", "/")) if os.access(environment.get("HOME", "/"), os.W_OK) else Path("/tmp")
    return Path(environment.get("KERAS_HOME") or home / ".keras").expanduser()


def refuse_small_address_space() -> None:
    """Check that the address space of this process is large enough for TensorFlow.

    In a smaller one, TensorFlow cannot load its library, or the process aborts when a thread cannot start.

    Raises:
        StartError: if the limit is smaller than LEAST_ADDRESS_SPACE.
    """
    if sys.platform == "win32":  # Windows has no such limit
        return
    import resource  # here, because Windows does not have it

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE:
        raise StartError(
            f"This process may reserve only {limit // 1024} KiB of address space (ulimit -v), and TensorFlow needs at "
            f"least {LEAST_ADDRESS_SPACE // 1024}. Run ulimit -v unlimited, then the same command again."
        )


def _is_keras_3(environment: Mapping[str, str]) -> bool:
    """Return whether `tf.keras` will be Keras 3, the only one with several backends."""
    if environment.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true"):
        return False
    try:
        return int(importlib.metadata.version("keras").split(".")[0]) >= 3
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False


def _read_backend(file: Path) -> str | None:
    """Return the backend that Keras's configuration file names, or None."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    backend = found.get("backend") if isinstance(found, dict) else None
    return backend if isinstance(backend, str) else None
