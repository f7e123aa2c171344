"""The state of a run in its checkpoints: saved beside training, and taken up again at the start of a session.

A state with a number that is NaN or infinite is never saved and never loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from lowlevel_simclr.run import checkpoint
from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.folder import Run
from lowlevel_simclr.training.learner import Learner
from lowlevel_simclr.training.plan import Plan
from lowlevel_simclr.training.workers import Team, check_ranks, spread_arrays


class NonFiniteState(ArithmeticError):
    """A variable became NaN or infinite. The message names it and the step."""


def refuse_non_finite_state(done: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Check that every number of a state is finite.

    The loss cannot tell: ReLU turns NaN into 0, so that an encoder of NaN has the loss of chance.

    Args:
        done: steps trained.
        arrays: the state by name.

    Raises:
        NonFiniteState: one is not.
    """
    name = checkpoint.find_non_finite(arrays)
    if name is None:
        return
    where = f"after step {done}" if done else "before the first step"
    remedy = (
        "a lower --learning-rate, a longer warm-up or --precision float32 usually helps"
        if done
        else "give other --weights"
    )
    raise NonFiniteState(f"{name} has a number that is NaN or infinite {where}: {remedy}")


def check_state(done: int, state: Mapping[str, tf.Tensor]) -> None:
    """Check the state of a moment, as `Learner.snapshot` gives it.

    Raises:
        NonFiniteState: a number is NaN or infinite.
    """
    refuse_non_finite_state(done, {name: tensor.numpy() for name, tensor in state.items()})


def save_state(plan: Plan, run: Run, done: int, state: Mapping[str, tf.Tensor]) -> None:
    """Write the checkpoint of a step.

    Args:
        plan: of the run.
        run: whose folder it is.
        done: steps trained.
        state: as `Learner.snapshot` gives it.

    Raises:
        NonFiniteState: a number is NaN or infinite; nothing is written.
        CheckpointError: it cannot be written.
    """
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    refuse_non_finite_state(done, arrays)
    meta = {"config_hash": plan.config_hash, "seed": plan.seed}
    checkpoint.save(run.checkpoints, done, arrays, meta, plan.keep_checkpoints)


def restore_state(run: Run, team: Team, learners: Sequence[Learner]) -> int:
    """Give every learner the state of the newest sound checkpoint, and return its step; 0 where there is none.

    Metrics of later steps are cut, because these steps are about to be written again. Checkpoints of later steps,
    which could not be used, are renamed.

    Raises:
        RunError: the checkpoint is of another model.
        CheckpointError: checkpoints are there and cannot be read, or none is sound; nothing was changed.
        NonFiniteState: what the run starts from has a number that is NaN or infinite.
        DistributionError: TensorFlow numbers the replicas in another order.
    """
    saved, first = checkpoint.load_latest(run.checkpoints), learners[0]
    try:
        if saved:
            first.restore(saved.arrays)
    except ValueError as error:
        raise RunError(
            f"the checkpoint in {run.folder} does not fit its config.json: {error}; where another version of "
            "this package has written it, go on with that one, or give --fresh"
        ) from None
    if team.count > 1:
        check_ranks(team.workers, team.local)
        arrays = spread_arrays(team.workers, first.arrays())
        for learner in learners:
            learner.restore(arrays)
    done = int(first.step.numpy())
    if saved is None:
        refuse_non_finite_state(done, first.arrays())
        run.set_metrics_aside()
        return done
    for path in checkpoint.set_later_aside(run.checkpoints, done):
        print(f"{path} was not used and is kept under this name", file=sys.stderr)
    run.cut_metrics(done)
    return done
