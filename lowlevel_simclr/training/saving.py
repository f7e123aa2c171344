"""Saves the state of a run in checkpoints while it trains, and restores it when the training program starts again.

A state that contains a NaN or infinite number is never saved and never loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.run import checkpoint
from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.folder import Run
from lowlevel_simclr.training.learner import Learner
from lowlevel_simclr.training.plan import Plan
from lowlevel_simclr.training.workers import Team, check_ranks, spread_arrays


class NonFiniteState(ArithmeticError):
    """A variable that became NaN or infinite. The message names the variable and the step."""


def refuse_non_finite_state(done: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Check that every number of a state is finite.

    The loss does not show a NaN in the weights. ReLU turns NaN into 0, so an encoder full of NaN has the same finite
    loss as one that cannot tell images apart.

    Args:
        done: steps trained so far.
        arrays: the state, as a dict from names to arrays.

    Raises:
        NonFiniteState: if a number is NaN or infinite.
    """
    name = checkpoint.find_non_finite(arrays)
    if name is None:
        return
    where = f"after step {done}" if done else "before the first step"
    remedy = "Try a lower --learning-rate, a longer warm-up or --precision float32." if done else "Use other --weights."
    raise NonFiniteState(f"{name} has a number that is NaN or infinite {where}. {remedy}")


def check_state(done: int, state: Mapping[str, tf.Tensor]) -> None:
    """Check that every number of a snapshot is finite.

    Args:
        done: steps trained so far.
        state: the state, as `Learner.take_snapshot` returns it.

    Raises:
        NonFiniteState: if a number is NaN or infinite.
    """
    refuse_non_finite_state(done, {name: tensor.numpy() for name, tensor in state.items()})


def save_state(plan: Plan, run: Run, done: int, state: Mapping[str, tf.Tensor]) -> None:
    """Write the checkpoint of a step.

    Args:
        plan: the plan of the run.
        run: the run folder.
        done: steps trained so far.
        state: the state, as `Learner.take_snapshot` returns it.

    Raises:
        NonFiniteState: if a number is NaN or infinite. Then nothing is written.
        CheckpointError: if the checkpoint cannot be written.
    """
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    refuse_non_finite_state(done, arrays)
    meta = {"config_hash": plan.config_hash, "seed": plan.seed}
    checkpoint.save(run.checkpoints, done, arrays, meta, plan.keep_checkpoints)


def restore_state(run: Run, team: Team, learners: Sequence[Learner]) -> int:
    """Set every learner to the state of the newest sound checkpoint, and return its step.

    Training will make the steps after this checkpoint again, so the function removes their metrics. It renames
    checkpoints of later steps, because they are damaged and could not be used.

    Without a checkpoint, the function returns 0, the learners keep their initial state, and old metrics are renamed.

    Args:
        run: the run folder.
        team: the replicas.
        learners: the learner of each local replica. All get the same state.

    Raises:
        RunError: if the checkpoint is from another model.
        CheckpointError: if a checkpoint cannot be read, or if there are checkpoints and none is sound. Then nothing was
            changed.
        NonFiniteState: if the run starts at step 0 and its initial state has a number that is NaN or infinite.
        DistributionError: if TensorFlow numbers the replicas in another order.
    """
    saved, first = checkpoint.load_latest(run.checkpoints), learners[0]
    try:
        if saved:
            first.restore(saved.arrays)
    except ValueError as error:
        raise RunError(
            f"The checkpoint in {run.folder} does not fit its config.json: {str(error).removesuffix('.')}. If another "
            "version of this package wrote it, resume with that version. Otherwise start a new run with --fresh."
        ) from None
    if team.count > 1:
        check_ranks(team.workers, team.local)
        arrays = spread_arrays(team.workers, first.read_arrays())
        for learner in learners:
            learner.restore(arrays)
    done = int(first.step.numpy())
    if saved is None:
        refuse_non_finite_state(done, first.read_arrays())
        run.set_metrics_aside()
        return done
    for path in checkpoint.set_later_aside(run.checkpoints, done):
        print(f"A checkpoint of a later step could not be used. It is kept as {show_name(path)}.", file=sys.stderr)
    run.cut_metrics(done)
    return done
