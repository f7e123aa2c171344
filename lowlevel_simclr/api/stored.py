"""Reads the configuration with which a run was trained."""

from __future__ import annotations

from pathlib import Path

from lowlevel_simclr.config.settings import Config, ConfigError
from lowlevel_simclr.config.validation import restore_config
from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.results import read_config


def read_run_config(folder: Path) -> Config:
    """Return the configuration in a run's config.json.

    Raises:
        RunError: if the folder holds no run, or if this version of the package does not accept one of its settings.
    """
    values = read_config(folder)
    try:
        return restore_config(values)
    except ConfigError as error:
        raise RunError(
            f"This version cannot read {folder / 'config.json'}: {error} Use the version that wrote the run "
            "(environment.json names it), or repair the file."
        ) from None
