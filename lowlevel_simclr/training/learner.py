"""The state that a run trains and saves: encoder, projection head, optimizer, loss scale and step counter.

An optimizer slot is a variable that the optimizer keeps for a weight, such as its momentum.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from lowlevel_simclr.evaluation.starting_encoder import build_starting_encoder
from lowlevel_simclr.model.projection import build_projection_head
from lowlevel_simclr.optim.loss_scale import LossScale, build_loss_scale
from lowlevel_simclr.optim.optimizers import Optimizer, build_optimizer
from lowlevel_simclr.runtime import keras
from lowlevel_simclr.runtime.precision import set_precision
from lowlevel_simclr.training.plan import Plan


@dataclasses.dataclass(frozen=True)
class Learner:
    """The state of training: encoder f, projection head g, optimizer slots, loss scale and step counter."""

    encoder: tf.keras.Model
    projection: tf.keras.Model
    optimizer: Optimizer
    loss_scale: LossScale
    step: tf.Variable  # () int64, steps trained so far

    def name_state(self) -> dict[str, tf.Variable]:
        """Return a dict from names to all variables that the next step depends on.

        The names are the same in every process.
        """
        named = {
            **keras.name_variables("encoder", self.encoder),
            **keras.name_variables("projection", self.projection),
        }
        named |= {f"optimizer/{place:04d}": slot for place, slot in enumerate(self.optimizer.variables)}
        named |= {f"loss_scale/{place}": variable for place, variable in enumerate(self.loss_scale.variables)}
        return named | {"step": self.step}

    def take_snapshot(self) -> dict[str, tf.Tensor]:
        """Return the state at this moment. Later steps do not change it.

        The tensors share the memory of the variables. So taking a snapshot needs no extra memory. Once training
        continues, the snapshot needs as much memory as the whole state. Sharing is safe for two reasons. If a tensor
        still uses a variable's memory, an assignment gives the variable new memory. And the native update never writes
        in place.
        """
        return {name: keras.unwrap_variable(each).read_value() for name, each in self.name_state().items()}

    def read_arrays(self) -> dict[str, np.ndarray]:
        """Return the present state as a dict from names to NumPy arrays."""
        return {name: tensor.numpy() for name, tensor in self.take_snapshot().items()}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Set the state to arrays that the method `read_arrays` returned.

        Args:
            arrays: the state, as a dict from names to arrays.

        Raises:
            ValueError: if an array is missing or has another shape, for example if the state is from another model.
        """
        keras.assign_named(self.name_state(), arrays)


def build_learner(plan: Plan, channels: int) -> Learner:
    """Return the learner of a plan before its first step, with initial weights and optimizer slots of 0.

    Args:
        plan: the plan of the run.
        channels: the number of channels of an image (C).
    """
    model, choice = plan.model, plan.optimizer
    set_precision(plan.precision)
    f = build_starting_encoder(model.encoder, model.stem, model.image_size, channels, model.weights, plan.seed)
    g = build_projection_head(
        f.output_shape[-1], model.projection_widths, seed=plan.seed, batch_norm=model.projection_batch_norm
    )
    optimizer = build_optimizer(
        choice.optimizer,
        list_trainable_variables(f, g),
        momentum=choice.momentum,
        weight_decay=choice.weight_decay,
        trust_coefficient=choice.trust_coefficient,
        beta_1=choice.beta_1,
        beta_2=choice.beta_2,
        epsilon=choice.epsilon,
        lars_update_all=plan.implementation.lars_update_all,
    )
    return start_learner(f, g, optimizer, build_loss_scale(plan.precision))


def start_learner(
    encoder: tf.keras.Model, projection: tf.keras.Model, optimizer: Optimizer, loss_scale: LossScale
) -> Learner:
    """Return a learner at step 0."""
    return Learner(encoder, projection, optimizer, loss_scale, tf.Variable(0, dtype=tf.int64, trainable=False))


def list_trainable_variables(encoder: tf.keras.Model, projection: tf.keras.Model) -> list[tf.Variable]:
    """Return the trainable variables of the encoder and the projection head, in the order that the optimizer uses."""
    return [*encoder.trainable_variables, *projection.trainable_variables]
