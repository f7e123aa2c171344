"""The state of a run in its checkpoints: saved beside training, and taken up again at the start of a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from lowlevel_simclr.run import checkpoint
from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.folder import Run
from lowlevel_simclr.training.learner import Learner
from lowlevel_simclr.training.plan import Plan
from lowlevel_simclr.training.workers import Team, check_ranks, spread_arrays


def save_state(plan: Plan, run: Run, done: int, state: Mapping[str, tf.Tensor]) -> None:
    """Write the checkpoint of a step.

    Args:
        plan: of the run.
        run: whose folder it is.
        done: steps trained.
        state: as `Learner.snapshot` gives it.

    Raises:
        CheckpointError: it cannot be written.
    """
    checkpoint.save(
        run.checkpoints,
        done,
        {name: tensor.numpy() for name, tensor in state.items()},
        {"config_hash": plan.config_hash, "seed": plan.seed},
        plan.keep_checkpoints,
    )


def restore_state(run: Run, team: Team, learners: Sequence[Learner]) -> int:
    """Give every learner the state of the newest checkpoint, and return its step; 0 where there is none.

    Metrics of later steps are cut, because these steps are about to be written again.

    Raises:
        RunError: the checkpoint is of another model.
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
    run.cut_metrics(done)
    return done
