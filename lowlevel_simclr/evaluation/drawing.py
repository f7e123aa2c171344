"""Imports the drawing modules as late as possible, so that a program also runs without a working Matplotlib."""

from __future__ import annotations

import importlib
from types import ModuleType

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.run.atomic import RunError


def import_drawing(module: str) -> ModuleType:
    """Return a module that needs Matplotlib.

    Args:
        module: its name inside the package lowlevel_simclr.evaluation, such as "plots".

    Raises:
        RunError: if Matplotlib cannot be imported.
    """
    try:
        return importlib.import_module(f"lowlevel_simclr.evaluation.{module}")
    except Exception as error:  # noqa: BLE001, Matplotlib raises many types for errors in its configuration
        reason = show_name(f"{type(error).__name__}: {error}")
        raise RunError(
            f"Matplotlib cannot be loaded ({reason}). Install it again, or check the file that MATPLOTLIBRC names."
        ) from error
