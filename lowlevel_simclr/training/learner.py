"""What is trained and saved: encoder, projection head, optimizer, loss scale and step counter."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from lowlevel_simclr.model.encoder import build_encoder
from lowlevel_simclr.model.projection import build_projection_head
from lowlevel_simclr.optim.loss_scale import LossScale, build_loss_scale
from lowlevel_simclr.optim.optimizers import Optimizer, build_optimizer
from lowlevel_simclr.runtime import keras
from lowlevel_simclr.runtime.precision import set_precision
from lowlevel_simclr.training.plan import Plan


@dataclasses.dataclass(frozen=True)
class Learner:
    """What is trained and what training keeps: f, g, the optimizer's slots, the loss scale, the step counter."""

    encoder: tf.keras.Model
    projection: tf.keras.Model
    optimizer: Optimizer
    loss_scale: LossScale
    step: tf.Variable  # () int64, steps done

    def named_state(self) -> dict[str, tf.Variable]:
        """Every variable that the next step depends on, by a name that stays the same from one program to the next."""
        named = {
            **keras.name_variables("encoder", self.encoder),
            **keras.name_variables("projection", self.projection),
        }
        named |= {f"optimizer/{place:04d}": slot for place, slot in enumerate(self.optimizer.variables)}
        named |= {f"loss_scale/{place}": variable for place, variable in enumerate(self.loss_scale.variables)}
        return named | {"step": self.step}

    def snapshot(self) -> dict[str, tf.Tensor]:
        """The state of this moment, whatever training does next: costs nothing now, its memory once training moves on.

        Tensors that share the variables' memory. TensorFlow gives a variable new memory where a tensor still holds the
        old one, and the native update never writes in place.
        """
        return {name: keras.unwrap_variable(each).read_value() for name, each in self.named_state().items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """The state as arrays, to be saved."""
        return {name: tensor.numpy() for name, tensor in self.snapshot().items()}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes back what `arrays` gave.

        Raises:
            ValueError: the names or shapes are those of another model or optimizer.
        """
        keras.assign_named(self.named_state(), arrays)


def build_learner(plan: Plan, channels: int) -> Learner:
    """Return a learner before its first step: the seed's weights, and an optimizer that has not moved.

    Args:
        plan: of the run.
        channels: C of the images.
    """
    model, choice = plan.model, plan.optimizer
    set_precision(plan.precision)
    f = build_encoder(model.encoder, model.stem, model.image_size, channels, weights=model.weights, seed=plan.seed)
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
    """A learner before its first step."""
    return Learner(encoder, projection, optimizer, loss_scale, tf.Variable(0, dtype=tf.int64, trainable=False))


def list_trainable_variables(encoder: tf.keras.Model, projection: tf.keras.Model) -> list[tf.Variable]:
    """The variables of f and g that the loss moves, in the order the optimizer knows them by."""
    return [*encoder.trainable_variables, *projection.trainable_variables]
