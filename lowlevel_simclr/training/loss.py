"""The training loss, NT-Xent, over the rows of all replicas (copies of the model), with its chance level and top-1.

Top-1 says for each view whether its most similar other view in the batch shows the same image. The chance level is the
loss of an encoder that cannot tell views apart.

To add another contrastive loss, add to this file a function with the signature of `make_loss`, and its chance level.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

from lowlevel_simclr.training.replicas import ALONE, Replica, order_canonically

LossAndTop1 = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]  # z (2N, d) -> loss (2N,), top1 (2N,) bool

# The loss is this factor times the mean over the 2N views. The paper uses "mean". "google" is what Google's code does:
# it adds the mean over the first views and the mean over the second views.
LOSS_FACTORS = {"mean": 1.0, "google": 2.0}


class NtXentOps(Protocol):
    """The NT-Xent functions that the training loss needs, as `ops` and `stock` have them."""

    @property
    def nt_xent_and_top1(self) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
        """The loss and top-1 of all rows."""

    @property
    def nt_xent_rows_forward_and_top1(self) -> Callable[..., tuple[tf.Tensor, tf.Tensor, Any]]:
        """The loss and top-1 of some rows, each compared with all rows, and the state that the gradient needs."""

    @property
    def nt_xent_rows_backward(self) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
        """The gradient of the losses of all rows with respect to some rows."""


def make_loss(formulas: NtXentOps, temperature: float, reduction: str, replica: Replica = ALONE) -> LossAndTop1:
    """Return a function that takes z (2n, d) and returns the loss (2n,) and the top-1 (2n,) of each view.

    Args:
        formulas: the NT-Xent functions, from `ops` or `stock`.
        temperature: tau, above 0.
        reduction: a key of `LOSS_FACTORS`.
        replica: the replica whose rows z holds. The loss compares them with the rows of all replicas.
    """
    nt_xent_and_top1 = make_nt_xent_and_top1(replica, formulas, temperature)
    factor = LOSS_FACTORS[reduction]
    if factor == 1:
        return nt_xent_and_top1

    def scale_losses(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        losses, top1 = nt_xent_and_top1(z)
        return factor * losses, top1

    return scale_losses


def make_nt_xent_and_top1(replica: Replica, formulas: NtXentOps, temperature: float) -> LossAndTop1:
    """Return a function that takes a replica's z (2n, d) and returns the losses (2n,) and top-1 (2n,) of its rows.

    Each row is compared with the rows of all replicas (the columns). The forward pass gathers z of all replicas. The
    backward pass gathers three numbers for each row: two numbers of the normaliser (the sum in the loss), and the
    cotangent (the gradient that arrives at the loss of the row). With the numbers of all rows, a replica computes the
    complete gradient of the global loss with respect to its own rows. So the replicas need not exchange gradients of z.

    Args:
        replica: the replica whose rows z holds. If it is the only one, `formulas.nt_xent_and_top1` is called.
        formulas: the NT-Xent functions, from `ops` or `stock`.
        temperature: tau, above 0.
    """
    if replica.count == 1:
        return lambda z: formulas.nt_xent_and_top1(z, temperature)

    def compute_losses(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pairs = z.shape[0] // 2
        own = (replica.rank * pairs, pairs, temperature)
        top1s: list[tf.Tensor] = []

        @tf.custom_gradient
        def compute_rows(z: tf.Tensor) -> tuple[tf.Tensor, Any]:
            z_all = order_canonically(replica.gather(z, "z"), replica.count)  # (2N, d)
            loss, top1, state = formulas.nt_xent_rows_forward_and_top1(z_all, *own)
            top1s.append(top1)

            def gradient(cotangent: tf.Tensor) -> tf.Tensor:
                columns = tf.concat([state.normaliser, tf.cast(cotangent, loss.dtype)[:, None]], axis=1)  # (2n, 3)
                columns = order_canonically(replica.gather(columns, "normalisers and cotangents"), replica.count)
                everywhere = state._replace(normaliser=columns[:, :2])
                return formulas.nt_xent_rows_backward(z_all, everywhere, columns[:, 2], *own)[0]

            return loss, gradient

        return compute_rows(z), top1s[0]

    return compute_losses


def compute_chance_loss(batch_size: int, reduction: str = "mean") -> float:
    """Return the loss of an encoder that cannot tell views apart: the factor times log(2N - 1).

    Args:
        batch_size: N, the number of images in a batch, over all replicas.
        reduction: a key of `LOSS_FACTORS`.

    Example:
        >>> round(compute_chance_loss(256), 3)
        6.236
    """
    return LOSS_FACTORS[reduction] * math.log(2 * batch_size - 1)
