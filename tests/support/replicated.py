"""A program for tests that trains a narrow ResNet for a few steps on several devices that train together (replicas).

    python -m tests.support.replicated CASES.json OUT

CASES.json is a list of `Case`s as JSON objects. For each case and each worker (process), the program writes
OUT/NAME-WORKER.npz. It contains the losses and top-1, the gradients of the first step, and the moving statistics and
weights after the last step, all from the worker's first replica. The entry "alike" says whether all replicas of the
worker ended with the same bits.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from lowlevel_simclr import ops, stock
from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.data.views import make_two_views
from lowlevel_simclr.model import encoder, projection
from lowlevel_simclr.optim import loss_scale, optimizers
from lowlevel_simclr.optim.schedule import compute_learning_rate
from lowlevel_simclr.runtime.precision import set_precision
from lowlevel_simclr.training import gradient_cache, loss, step
from lowlevel_simclr.training.implementation import Implementation
from lowlevel_simclr.training.learner import Learner, list_trainable_variables, start_learner
from lowlevel_simclr.training.replicas import Replica, StrategyReplica, choose_own_rows, find_local_devices
from lowlevel_simclr.training.strategies import compile_together
from lowlevel_simclr.training.workers import (
    Workers,
    check_ranks,
    choose_strategy,
    join_workers,
    make_replicas,
    run_on_each,
)

SIZE, BATCH, TEMPERATURE, IMAGES = 8, 24, 0.2, 48
VIRTUAL = 4
NARROW = encoder.Basic((1, 1), 8, projects=True)


@dataclasses.dataclass(frozen=True)
class Case:
    """One training: the number of replicas in this process, their number of micro-batches, and a bug from `BUGS`."""

    name: str
    replicas: int = 1
    micro: int = 1
    implementation: str = "native"
    precision: str = "float64"
    steps: int = 5
    batch_norm: str = "sync"
    bug: str = ""
    compiled: bool = True  # False: run eagerly. For a few steps, tracing would take longer than it saves.
    engine: str = "threads"


class Recording(optimizers.Lars):
    """The optimizer LARS. It also keeps the gradients that it received last."""

    def __init__(self, trained: Any) -> None:
        super().__init__(trained, weight_decay=1e-4, momentum=0.9, trust_coefficient=0.01)
        self.seen = [tf.Variable(tf.zeros(variable.shape, variable.dtype)) for variable in self.trained]

    def apply(self, gradients: Any, learning_rate: tf.Tensor) -> None:
        for seen, gradient in zip(self.seen, gradients):
            seen.assign(gradient)
        super().apply(gradients, learning_rate)


def make_implementation(name: str) -> Implementation:
    """Return the native or the stock implementation."""
    return Implementation.of(name, {"native": ops, "stock": stock}[name])


def make_table_of_views(dtype: str) -> np.ndarray:
    """Return the two views of every image, (images, 2, S, S, 3), made once for all replicas.

    If each replica made the views of its own images, they would differ from the views of a single device by rounding
    errors of float32. BatchNorm would amplify these, and they would hide the errors that the tests look for.
    """
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8)
    index = tf.range(IMAGES, dtype=tf.int64)
    made = make_two_views(
        tf.constant(images),
        tf.constant(1, tf.int64),
        index,
        seed=3,
        recipe=ViewRecipe(),
        size=SIZE,
        dtype=tf.float32,
        implementation=stock,
    )
    return np.stack(np.split(made.numpy().astype(dtype), 2), axis=1)


def build_learner(precision: str) -> Learner:
    """Return a narrow ResNet, a projection head and an optimizer (`Recording`)."""
    set_precision(precision)
    encoder.BASIC["narrow"] = NARROW
    f = encoder._build_basic("narrow", "cifar", (SIZE, SIZE, 3), seed=0)
    g = projection.build_projection_head(f.output_shape[-1], (16, 8), seed=0)
    return start_learner(f, g, Recording(list_trainable_variables(f, g)), loss_scale.build_loss_scale(precision))


def compute_rate(done: tf.Tensor) -> tf.Tensor:
    """Return the learning rate after `done` steps. It changes in each step, so a wrong number of steps shows."""
    return compute_learning_rate(done, 0.5, 2, 6)


def make_step(case: Case, replica: Replica, learner: Learner, table: np.ndarray) -> Any:
    """Return a function that trains one step on a batch of the replica's own rows and returns metrics."""
    held = tf.constant(table)

    def views(epoch: tf.Tensor, index: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        return tf.concat(tf.unstack(tf.gather(held, index), axis=1), axis=0)

    loss_of = loss.make_nt_xent_and_top1(replica, make_implementation(case.implementation), TEMPERATURE)

    def act(batch: step.Batch) -> step.Metrics:
        if case.micro == 1:
            return step.train_step(learner, views, loss_of, compute_rate, batch, replica)
        return gradient_cache.train_cached_step(learner, views, loss_of, compute_rate, batch, case.micro, replica)

    return act


def launch(case: Case, workers: Workers, local: list[Replica], one_steps: list[Any], strategy: Any) -> Any:
    """Return a function that trains one step on the batch of each local replica, by the engine of the case."""
    if strategy is not None:
        together = compile_together(strategy, local, one_steps, tf.as_dtype(case.precision))
        return lambda batches: together([repeat_batch(batch) for batch in batches], tf.constant(1))
    acts = [tf.function(one_step) if case.compiled else one_step for one_step in one_steps]
    return lambda batches: run_on_each(workers, local, lambda place: acts[place](batches[place]))[0]


def repeat_batch(batch: step.Batch) -> Any:
    """Return an iterator that gives one batch."""
    return iter(tf.data.Dataset.from_tensors(batch))


def run(case: Case, workers: Workers, group: int) -> dict[str, Any]:
    """Train the steps of a case, and return the results."""
    devices = [f"/device:CPU:{place}" for place in range(case.replicas)]
    strategy = choose_strategy(workers, devices) if case.engine == "strategy" else None
    ghost_size = BATCH // (case.replicas * workers.count * case.micro)
    kind = StrategyReplica if strategy else Replica
    local = make_replicas(workers, devices, case.batch_norm, ghost_size, kind)
    for replica in local:
        replica.group = group
    check_ranks(workers, local)
    learners = []
    for replica in local:
        with tf.device(replica.device):
            learners.append(build_learner(case.precision))
    if case.bug:
        BUGS[case.bug](local, learners)
    table = make_table_of_views(case.precision)
    one_steps = [make_step(case, *both, table) for both in zip(local, learners)]
    train = launch(case, workers, local, one_steps, strategy)
    count = workers.count * case.replicas
    shares = [choose_own_rows(replica.rank, count, BATCH, case.micro) for replica in local]
    out: dict[str, Any] = {"losses": [], "top1": []}
    for done in range(case.steps):
        order = np.random.default_rng(done).permutation(IMAGES)[:BATCH]
        found = train([make_batch(order[rows]) for rows in shares])
        out["losses"].append(found.loss.numpy().item())
        out["top1"].append(found.top1.numpy().item())
        if done == 0:
            gradients = {f"gradient/{i:02d}": seen.numpy() for i, seen in enumerate(learners[0].optimizer.seen)}
    states = [learner.read_arrays() for learner in learners]
    out["alike"] = all(states[0][name].tobytes() == state[name].tobytes() for state in states for name in states[0])
    return {**out, **gradients, **{f"state/{name}": value for name, value in states[0].items()}}


def make_batch(rows: np.ndarray) -> step.Batch:
    """Return the batch of some images. Their views come from a table, so the images are zeros."""
    return tf.constant(1, tf.int64), tf.constant(rows), tf.zeros([len(rows), SIZE, SIZE, 3], tf.uint8)


# The functions below plant bugs that other implementations of training on several devices are known to have.


def _no_gradient_through_the_gather(local: Any, learners: Any) -> None:
    """Plant a bug: the gradients do not contain the losses of other replicas.

    Their cotangents, which each replica gathers from all replicas, are set to 0.
    """
    original = Replica.gather

    def gather(self: Any, x: tf.Tensor, what: str = "gather") -> tf.Tensor:
        found = original(self, x, what)
        if what != "normalisers and cotangents":
            return found
        mine = tf.repeat(tf.range(self.count) == self.rank, x.shape[0])[:, None]
        return tf.concat([found[:, :2], tf.where(mine, found[:, 2:], tf.zeros_like(found[:, 2:]))], axis=1)

    Replica.gather = gather


def _no_terms_of_the_others(local: Any, learners: Any) -> None:
    """Plant a bug: a replica's rows get no gradient from the losses of other replicas, although they occur in them."""
    original = loss.make_nt_xent_and_top1

    def losses(replica: Any, chosen: Any, temperature: float) -> Any:
        def backward(z: tf.Tensor, state: Any, c: tf.Tensor, first: int, pairs: int, tau: float) -> Any:
            place = tf.range(z.shape[0]) % (z.shape[0] // 2)
            mine = (place >= first) & (place < first + pairs)
            others = tf.stack([state.normaliser[:, 0], state.normaliser[:, 1] * 1e300], axis=1)
            state = state._replace(normaliser=tf.where(mine[:, None], state.normaliser, others))
            return chosen.nt_xent_rows_backward(z, state, c, first, pairs, tau)

        return original(replica, chosen._replace(nt_xent_rows_backward=backward), temperature)

    loss.make_nt_xent_and_top1 = losses


def _averaged_gradients(local: Any, learners: Any) -> None:
    original = Replica.add_up_each

    def add_up_each(self: Any, tensors: Any, what: str) -> Any:
        found = original(self, tensors, what)
        return [value / self.count for value in found] if what == "gradients" else found

    Replica.add_up_each = add_up_each


def _rows_by_replica(local: Any, learners: Any) -> None:
    loss.order_canonically = lambda rows, replicas: rows


def _local_statistics(local: Any, learners: Any) -> None:
    for replica in local:
        replica.batch_norm = "local"


def _schedule_on_one_rank(local: Any, learners: Any) -> None:
    for replica, learner in zip(local, learners):
        if replica.rank == 0:
            learner.step.assign_add(1)


BUGS = {
    "no gradient through the gather": _no_gradient_through_the_gather,
    "gradient of own rows without the terms of the others": _no_terms_of_the_others,
    "gradients averaged instead of summed": _averaged_gradients,
    "rows by replica instead of by view": _rows_by_replica,
    "local statistics": _local_statistics,
    "schedule on one rank": _schedule_on_one_rank,
}


def main(cases: str, out: str) -> None:
    """Run the cases one after another. Plant the bug of a case before it runs, and remove the bug afterwards."""
    find_local_devices(f"cpu:{VIRTUAL}")
    workers = join_workers()
    kept = (Replica.gather, Replica.add_up_each, loss.order_canonically, loss.make_nt_xent_and_top1)
    for place, values in enumerate(json.loads(Path(cases).read_text())):
        found = run(Case(**values), workers, 100 + place)
        np.savez(Path(out) / f"{values['name']}-{workers.rank}.npz", **found)
        Replica.gather, Replica.add_up_each = kept[:2]
        loss.order_canonically, loss.make_nt_xent_and_top1 = kept[2:]


if __name__ == "__main__":
    main(*sys.argv[1:])
