"""Imitates a GPU with little memory, into which only small micro-batches (parts of a batch) fit."""

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
    """Return a replacement for `trial.fits_memory`: micro-batches of up to `largest` images fit.

    Args:
        largest: the number of images of the largest micro-batch that fits.
        tried: a list to which each call appends its plan.
    """

    def fits(chosen: Plan, images: dataset.DataSet) -> bool:
        tried.append(chosen)
        return chosen.micro_batch <= largest

    return fits


def make_team(count: int) -> workers.Team:
    """Return a team (the list of all replicas of a run) of `count` replicas in one process."""
    return workers.Team(workers.Workers(), tuple(Replica(rank, count) for rank in range(count)))


def resolve_config(config: settings.Config, largest: int = 100, replicas: int = 1, **changed: Any) -> settings.Config:
    """Return the configuration with --micro-batch auto replaced by a number, on a GPU where `largest` images fit."""
    given = {"fits": limit_memory(largest, []), "tell": lambda said: None, **changed}
    return plan.resolve(config, make_team(replicas), catalog.load_dataset("shapes"), **given)[0]


def pretend_gpu(patch: pytest.MonkeyPatch) -> None:
    """Make the plan behave as on a machine with a GPU."""
    patch.setattr(plan, "has_gpu", lambda: True)
