"""Tests the training loss: its factor (1 or 2), its chance level, and the memory that it needs on several devices.

The chance level is the loss if all similarities are equal. Devices that train together are called replicas.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf

from bench import harness
from lowlevel_simclr import ops, reference, stock
from lowlevel_simclr.training.loss import compute_chance_loss, make_loss, make_nt_xent_and_top1
from lowlevel_simclr.training.replicas import (
    Replica,
    find_local_devices,
)
from lowlevel_simclr.training.workers import Workers, make_replicas, run_on_each
from tests.support import replicated

FOUR, WIDTH, COPIES = 4, 64, 6


# The factor of the loss: it is 1 in the paper and 2 in Google's code


def test_googles_loss_is_twice_the_papers_in_value_gradient_and_chance() -> None:
    z = tf.constant(np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32))
    found = {}
    for reduction in ("mean", "google"):
        loss = make_loss(stock, 0.1, reduction)
        with tf.GradientTape() as tape:
            tape.watch(z)
            losses, top1 = loss(z)
        found[reduction] = (
            losses.numpy(),
            tape.gradient(losses, z).numpy(),
            top1.numpy(),
            compute_chance_loss(4, reduction),
        )
    for paper, google, factor in zip(found["mean"], found["google"], (2, 2, 1, 2)):
        np.testing.assert_allclose(google, factor * paper, rtol=1e-6)
    assert found["mean"][3] == pytest.approx(np.log(7))


@pytest.mark.parametrize("reduction", ["mean", "google"])
@pytest.mark.parametrize("pairs", [1, 3, 8])
def test_the_chance_level_is_the_loss_of_views_that_are_all_alike(pairs: int, reduction: str) -> None:
    losses, top1 = make_loss(stock, 0.5, reduction)(tf.ones((2 * pairs, 4)))
    # The bound is 8 spacings of float32 at 1, times 1 + 1 / tau = 3 (the size of the loss, see `compute_loss_scale`).
    np.testing.assert_allclose(losses, compute_chance_loss(pairs, reduction), rtol=0, atol=8 * 2.0**-23 * 3)
    assert not np.any(top1) or pairs == 1  # a tie counts as wrong; with one pair, no other candidate can tie


@pytest.mark.parametrize("formulas", [ops, stock], ids=["native", "stock"])
def test_the_loss_is_that_of_the_reference(formulas: ModuleType) -> None:
    z = np.random.default_rng(1).normal(size=(10, 6))
    losses, top1 = make_loss(formulas, 0.2, "google")(tf.constant(z))
    np.testing.assert_allclose(losses, 2 * reference.nt_xent(z, 0.2), rtol=0, atol=2 * 8 * 2.0**-52 * 6)
    np.testing.assert_array_equal(top1, reference.contrastive_top1(z))


# Memory of the loss


def loss_of_four(started: Callable[[], None], pairs: int, implementation: str) -> None:
    """Compute loss and gradient of `pairs` pairs on four replicas in this process.

    A first call with 64 pairs comes before, so that tracing is not measured. Call `started` between the two.
    """
    local = make_replicas(Workers(), find_local_devices(f"cpu:{FOUR}"), "sync", 0)
    chosen = replicated.make_implementation(implementation)

    def act_of(replica: Replica) -> Callable[[tf.Tensor], tf.Tensor]:
        losses = make_nt_xent_and_top1(replica, chosen, replicated.TEMPERATURE)

        @tf.function
        def act(z: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                tape.watch(z)
                loss = tf.reduce_mean(losses(z)[0])
            return tape.gradient(loss, z)

        return act

    acts = [act_of(replica) for replica in local]
    for count in (64, pairs):
        z = np.random.default_rng(0).normal(size=(FOUR, 2 * count // FOUR, WIDTH)).astype(np.float32)
        if count == pairs:
            started()
        found = run_on_each(Workers(), local, lambda place, z=z: acts[place](tf.constant(z[place])))
        assert np.isfinite(found[0]).all()


def grown_by_z_of_all(pairs: int, implementation: str) -> float:
    """Return how much peak memory the loss needs on each replica, in units of the array z (2N, d) of all N pairs."""
    grown = harness.measure_peak_growth(loss_of_four, pairs, implementation)
    assert isinstance(grown, int), grown
    copies = grown / FOUR / (2 * pairs * WIDTH * 4)
    print(f"{implementation}, {pairs} pairs: {grown / 2**20:.1f} MiB, each replica {copies:.2f} copies of all z")
    return copies


@pytest.mark.slow
def test_memory_of_the_loss_is_linear_on_each_replica() -> None:
    """Test the memory that the loss needs on each of R replicas, in units of the array z (2N, d) of all N pairs.

    A replica holds four arrays of this size: the rows that it gathered from all replicas, the same rows with all first
    views before all second views, one more copy, and a gradient. The matrix of similarities between its own 2N / R rows
    and all 2N rows would be 2N / R / d = 128 times as large as z. The formulas that are built from TensorFlow's ops
    (stock) store this matrix. They are measured too, with a smaller batch, to prove that this test would notice the
    matrix.
    """
    assert grown_by_z_of_all(16_384, "native") <= COPIES
    assert grown_by_z_of_all(4_096, "stock") > 2 * COPIES
