"""Imitates a GPU with little memory, into which only small parts of a batch (micro-batches) fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lowlevel_simclr.config import identity, settings
from lowlevel_simclr.data import catalog, dataset
from lowlevel_simclr.training import plan, workers
from lowlevel_simclr.training.plan import Plan
from lowlevel_simclr.training.replicas import Replica

AUTO = identity.replace(settings.Config(), batch_size=24, micro_batch="auto", image_size=8, projection_widths=(8,))
ON_HOST = identity.replace(AUTO, xla="off", data_on="host")


def limit_memory(largest: int, tried: list[Plan]) -> Callable[[Plan, dataset.DataSet], bool]:
    """Return a replacement for `trial.fits_memory`, which says whether the settings of a run fit into the memory.

    Args:
        largest: the number of images in the largest micro-batch that fits.
        tried: a list to which each call adds the settings (plan) that it was asked about.
    """

    def fits(chosen: Plan, images: dataset.DataSet) -> bool:
        tried.append(chosen)
        return chosen.micro_batch <= largest

    return fits


def make_team(count: int) -> workers.Team:
    """Return the object that lists all devices (replicas) of a run, for `count` replicas in one process."""
    return workers.Team(workers.Workers(), tuple(Replica(rank, count) for rank in range(count)))


def resolve_config(config: settings.Config, largest: int = 100, replicas: int = 1, **changed: Any) -> settings.Config:
    """Return the configuration with a number in place of --micro-batch auto. `largest` images fit into the GPU."""
    given = {"fits": limit_memory(largest, []), "tell": lambda said: None, **changed}
    return plan.resolve(config, make_team(replicas), catalog.load_dataset("shapes"), **given)[0]


def pretend_gpu(patch: pytest.MonkeyPatch) -> None:
    """Make the package choose settings as on a machine with a GPU."""
    patch.setattr(plan, "has_gpu", lambda: True)
