"""Tests `trial`, which makes one training step to see whether the settings of a run fit into the memory."""

from __future__ import annotations

import pytest
import tensorflow as tf

from lowlevel_simclr.config import identity
from lowlevel_simclr.data import catalog, dataset
from lowlevel_simclr.training import loop, plan, trial
from lowlevel_simclr.training.plan import Plan
from tests.support.made_up_memory import AUTO

pytestmark = pytest.mark.usefixtures("small_runs")


def make_trial(micro_batch: str) -> tuple[Plan, dataset.DataSet]:
    images = catalog.load_dataset("shapes")
    return plan.make_plan(identity.replace(AUTO, micro_batch=micro_batch), images), images


def test_a_step_that_fits_is_taken_and_one_without_memory_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = make_trial("12")
    assert trial.fits_memory(*tried)

    def without_memory(*_: object, **__: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(loop, "make_steps", lambda *_, **__: without_memory)
    assert not trial.fits_memory(*tried)


def test_any_other_error_of_a_step_is_no_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise tf.errors.InvalidArgumentError(None, None, "wrong")

    monkeypatch.setattr(loop, "make_steps", lambda *_, **__: wrong)
    with pytest.raises(tf.errors.InvalidArgumentError):
        trial.fits_memory(*make_trial("12"))
