"""Tests the class `Learner`, which holds all variables of a training: networks, optimizer and step counter."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr import stock
from lowlevel_simclr.ops import _route, lars_update_all
from lowlevel_simclr.optim import loss_scale, optimizers
from lowlevel_simclr.training import step
from lowlevel_simclr.training.learner import list_trainable_variables, start_learner


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("update", [stock.lars_update_all, lars_update_all], ids=["stock", "native"])
def test_a_snapshot_is_of_its_moment_whatever_training_does_next(name: str, jit_compile: bool, update: Any) -> None:
    """Test that later training steps do not change a snapshot.

    A snapshot is the state after one step. A background thread saves it while training continues. The snapshot shares
    the memory of the variables until training changes them.
    """
    f = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(8), tf.keras.layers.BatchNormalization()])
    g = tf.keras.Sequential([tf.keras.Input((8,)), tf.keras.layers.Dense(3)])
    if update is lars_update_all and (name != "lars" or (jit_compile and _route.find_route_error() is not None)):
        pytest.skip("the native update is only for LARS, and under XLA it needs a TensorFlow that can call it")
    chosen = optimizers.build_optimizer(name, list_trainable_variables(f, g), weight_decay=0.1, lars_update_all=update)
    learner = start_learner(f, g, chosen, loss_scale.build_loss_scale("float32"))

    @tf.function(jit_compile=jit_compile)
    def train_once(x: tf.Tensor) -> None:
        step.train_step(
            learner,
            lambda epoch, index, images: images,
            functools.partial(stock.nt_xent_and_top1, temperature=0.5),
            lambda done: tf.constant(0.1),
            (tf.constant(0), tf.constant(0), x),
        )

    x = tf.random.stateless_normal((6, 4), [1, 2])
    train_once(x)
    snapshot = learner.take_snapshot()
    before = {key: np.array(tensor) for key, tensor in snapshot.items()}
    for _ in range(3):
        train_once(x)
    after = learner.read_arrays()
    assert {key for key in before if snapshot[key].numpy().tobytes() != before[key].tobytes()} == set()
    assert all(after[key].tobytes() != before[key].tobytes() for key in before if "kernel" in key or key == "step")
