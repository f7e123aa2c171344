"""The optimizers LARS, LAMB, SGD and AdamW, which update float32 weights.

A trust ratio is the factor |w| / |update| by which LARS and LAMB scale the update of a variable w. Weight decay and
trust ratios apply to variables of rank 2 and more. Biases and the variables of BatchNorm have rank 1 and are exempt.
The name of a variable makes no difference. A slot is a variable that an optimizer keeps for each weight, such as a
velocity. The checkpoint holds every slot, so a resumed run makes bit-equal updates.

Other modules compute the gradients (`training/step.py`), the learning rate (`schedule.py`) and the loss scale
(`loss_scale.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from lowlevel_simclr import stock
from lowlevel_simclr.config.choices import OPTIMIZERS
from lowlevel_simclr.runtime import keras
from lowlevel_simclr.runtime.keras import Variable
from lowlevel_simclr.stock.lars_update import compute_trust_ratio

LarsUpdateAll = Callable[..., tuple[list[tf.Tensor], list[tf.Tensor]]]  # the signature of `stock.lars_update_all`


class Optimizer:
    """The base class of all optimizers. It holds the variables to update and creates the slots.

    Attributes:
        trained: the variables that are updated.
        weight_decay: the factor of the weight decay.
        decayed: for each variable, whether its rank is 2 or more, so that weight decay and a trust ratio apply to it.
        variables: the slots in a fixed order, which the checkpoint saves.
    """

    slots_each = 1  # number of slots for each variable; a slot has the shape of its variable

    def __init__(self, trained: Sequence[Variable], weight_decay: float) -> None:
        self.trained = list(trained)
        self.weight_decay = weight_decay
        self.decayed = [len(variable.shape) > 1 for variable in self.trained]
        self._slots = [
            [tf.Variable(tf.zeros(variable.shape, variable.dtype), trainable=False) for variable in self.trained]
            for _ in range(self.slots_each)
        ]

    @property
    def variables(self) -> list[tf.Variable]:
        """Return every slot."""
        return [slot for slots in self._slots for slot in slots]

    def apply(self, gradients: Sequence[tf.Tensor | None], learning_rate: tf.Tensor) -> None:
        """Update every variable once.

        Args:
            gradients: one gradient for each variable, in the order of `trained`. Each has the shape of its variable,
                and is cast to the type of that variable.
            learning_rate: learning rate of this step, a scalar.

        Raises:
            ValueError: if a variable has no gradient.
        """
        refuse_missing(self.trained, gradients)
        with tf.name_scope("optimizer"):
            for place, gradient in enumerate(gradients):
                dtype = self.trained[place].dtype
                self._move(place, tf.cast(gradient, dtype), tf.cast(learning_rate, dtype))

    def _move(self, place: int, gradient: tf.Tensor, learning_rate: tf.Tensor) -> None:
        raise NotImplementedError

    def _decay(self, place: int) -> float:
        return self.weight_decay if self.decayed[place] else 0.0


def refuse_missing(trained: Sequence[Variable], gradients: Sequence[tf.Tensor | None]) -> None:
    """Check that every variable has a gradient.

    Args:
        trained: the variables.
        gradients: one gradient, or None, for each variable.

    Raises:
        ValueError: if a variable has no gradient. The message names the variable.
    """
    for variable, gradient in zip(trained, gradients):
        if gradient is None:
            raise ValueError(
                f"The variable {keras.find_variable_path(variable)} has no gradient, because the loss does not depend "
                "on it. Freeze the variable, or use it in the loss."
            )


class Sgd(Optimizer):
    """SGD with momentum: v = m v + lr (g + beta w), w -= v.

    Here w is the weight, g its gradient, v the velocity, m the momentum, lr the learning rate, beta the weight decay.
    """

    def __init__(self, trained: Sequence[Variable], weight_decay: float, momentum: float) -> None:
        super().__init__(trained, weight_decay)
        self.momentum = momentum

    def _move(self, place: int, gradient: tf.Tensor, learning_rate: tf.Tensor) -> None:
        weight, velocity = self.trained[place], self._slots[0][place]
        update = gradient + self._decay(place) * weight if self._decay(place) else gradient
        velocity.assign(self.momentum * velocity + learning_rate * update)
        weight.assign_sub(velocity)


class Lars(Sgd):
    """LARS (You et al. 2017) as SimCLR uses it: `Sgd`, but with g + beta w scaled to the length eta |w|.

    Attributes:
        trust_coefficient: eta.
        update_all: the function that computes the update: `ops.lars_update_all` (native kernels) or
            `stock.lars_update_all` (plain TensorFlow).
    """

    def __init__(
        self,
        trained: Sequence[Variable],
        weight_decay: float,
        momentum: float,
        trust_coefficient: float,
        update_all: LarsUpdateAll = stock.lars_update_all,
    ) -> None:
        super().__init__(trained, weight_decay, momentum)
        self.trust_coefficient = trust_coefficient
        self.update_all = update_all

    def apply(self, gradients: Sequence[tf.Tensor | None], learning_rate: tf.Tensor) -> None:
        """Update every variable once, with one call of `update_all`. `Optimizer.apply` describes the arguments."""
        refuse_missing(self.trained, gradients)
        velocities = self._slots[0]
        with tf.name_scope("optimizer"):
            new_weights, new_velocities = self.update_all(
                [tf.convert_to_tensor(weight) for weight in self.trained],
                [find_before_widening(tf.cast(each, slot.dtype)) for each, slot in zip(gradients, velocities)],
                [tf.convert_to_tensor(velocity) for velocity in velocities],
                learning_rate=learning_rate,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
                trust_coefficient=self.trust_coefficient,
            )
            for place, variable in enumerate(self.trained):
                velocities[place].assign(new_velocities[place])
                variable.assign(new_weights[place])


def find_before_widening(tensor: tf.Tensor) -> tf.Tensor:
    """Return the bfloat16 tensor that was cast to this float32 tensor. Return any other tensor as it is.

    Mixed precision casts each weight to bfloat16, so the gradient of the weight is computed in bfloat16 and then cast
    to float32. If the update reads the bfloat16 tensor instead, nothing needs the float32 tensor, and TensorFlow
    removes the cast from the graph. This saves writing 4 bytes and reading 2 bytes for each weight, and the update
    stays the same.
    """
    if not tf.is_symbolic_tensor(tensor) or tensor.op.type != "Cast":
        return tensor
    narrow = tensor.op.inputs[0]
    return narrow if (narrow.dtype, tensor.dtype) == (tf.bfloat16, tf.float32) else tensor


class AdamW(Optimizer):
    """AdamW (Loshchilov and Hutter 2019): Adam with bias correction and decoupled weight decay.

    The decay multiplies the weight by 1 - (learning rate x weight decay) before Adam's step.
    """

    slots_each = 2

    def __init__(
        self, trained: Sequence[Variable], weight_decay: float, beta_1: float, beta_2: float, epsilon: float
    ) -> None:
        super().__init__(trained, weight_decay)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self._count = tf.Variable(0, dtype=tf.int64, trainable=False)

    @property
    def variables(self) -> list[tf.Variable]:
        """Return every slot, then the number of updates."""
        return [*super().variables, self._count]

    def apply(self, gradients: Sequence[tf.Tensor | None], learning_rate: tf.Tensor) -> None:
        """Update every variable once, and count this update for the bias correction. See `Optimizer.apply`."""
        self._count.assign_add(1)
        super().apply(gradients, learning_rate)

    def _move(self, place: int, gradient: tf.Tensor, learning_rate: tf.Tensor) -> None:
        """Update one variable.

        TensorFlow's own Adam kernel makes one pass over memory. Weight decay makes one more pass over the weight.
        """
        weight = keras.unwrap_variable(self.trained[place])
        if self._decay(place):
            weight.assign(weight * (1 - learning_rate * self._decay(place)))
        count = tf.cast(self._count, gradient.dtype)
        power_1, power_2 = tf.pow(self.beta_1, count), tf.pow(self.beta_2, count)
        tf.raw_ops.ResourceApplyAdam(
            var=weight.handle,
            m=self._slots[0][place].handle,
            v=self._slots[1][place].handle,
            beta1_power=power_1,
            beta2_power=power_2,
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            # The kernel adds epsilon to the root of the uncorrected second moment. The paper adds it to the root of the
            # corrected one. With this factor, both give the same step.
            epsilon=self.epsilon * tf.sqrt(1 - power_2),
            grad=gradient,
        )


class Lamb(AdamW):
    """LAMB (You et al. 2020): the step of AdamW for a variable w, multiplied by the trust ratio |w| / |step|."""

    def _move(self, place: int, gradient: tf.Tensor, learning_rate: tf.Tensor) -> None:
        weight = self.trained[place]
        update = self._compute_direction(place, gradient)
        if self._decay(place):
            update += self._decay(place) * weight
        trust = compute_trust_ratio(weight, update, 1.0) if self.decayed[place] else 1.0
        weight.assign_sub(learning_rate * trust * update)

    def _compute_direction(self, place: int, gradient: tf.Tensor) -> tf.Tensor:
        """Update both moments. Return the corrected first moment divided by the root of the corrected second moment."""
        first, second = self._slots[0][place], self._slots[1][place]
        first.assign(self.beta_1 * first + (1 - self.beta_1) * gradient)
        second.assign(self.beta_2 * second + (1 - self.beta_2) * tf.square(gradient))
        count = tf.cast(self._count, gradient.dtype)
        corrected = first / (1 - tf.pow(self.beta_1, count))
        return corrected / (tf.sqrt(second / (1 - tf.pow(self.beta_2, count))) + self.epsilon)


class AddonsLamb(Optimizer):
    """`tfa.optimizers.LAMB` of tensorflow-addons, with the interface of `Optimizer`."""

    slots_each = 0

    def __init__(
        self, trained: Sequence[Variable], weight_decay: float, beta_1: float, beta_2: float, epsilon: float
    ) -> None:
        super().__init__(trained, weight_decay)
        tfa = keras.import_tensorflow_addons()
        assert tfa is not None, "tensorflow-addons cannot be imported. Install it, or use Lamb."
        # tensorflow-addons excludes the variables whose names match one of these regular expressions. For each variable
        # of rank 0 or 1, there is an expression that matches only its name.
        excluded = [f"^{variable.name}$" for variable, decays in zip(self.trained, self.decayed) if not decays]
        self._lamb = tfa.optimizers.LAMB(
            learning_rate=0.0,  # `apply` sets the learning rate before every update
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            weight_decay=weight_decay,
            exclude_from_weight_decay=excluded or None,
            exclude_from_layer_adaptation=excluded or None,
        )
        self._lamb._create_all_weights(self.trained)

    @property
    def variables(self) -> list[tf.Variable]:
        """Return the slots of tensorflow-addons and its step counter."""
        return list(self._lamb.variables())

    def apply(self, gradients: Sequence[tf.Tensor | None], learning_rate: tf.Tensor) -> None:
        """Update every variable once. `Optimizer.apply` describes the arguments."""
        refuse_missing(self.trained, gradients)
        self._lamb.learning_rate.assign(learning_rate)
        self._lamb.apply_gradients(zip(gradients, self.trained))


def build_optimizer(
    name: str,
    variables: Sequence[Variable],
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    trust_coefficient: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    lars_update_all: LarsUpdateAll = stock.lars_update_all,
) -> Optimizer:
    """Return a new optimizer.

    Args:
        name: sgd, lars, adamw or lamb. For lamb, the optimizer of tensorflow-addons is used if that package is
            installed, and `Lamb` otherwise.
        variables: the variables to update.
        momentum: momentum of sgd and lars.
        weight_decay: factor of the weight decay, for variables of rank 2 and more.
        trust_coefficient: eta of lars, see `Lars`.
        beta_1: decay rate of the first moment of adamw and lamb.
        beta_2: decay rate of the second moment of adamw and lamb.
        epsilon: number that adamw and lamb add to the root of the second moment.
        lars_update_all: the function that computes the update of lars, see `Lars`.

    Raises:
        ValueError: if there is no such optimizer.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr.optim.optimizers import build_optimizer
        >>> weight = tf.Variable([[1.0]])
        >>> optimizer = build_optimizer("sgd", [weight], momentum=0.0)
        >>> optimizer.apply([tf.constant([[1.0]])], learning_rate=tf.constant(0.5))
        >>> weight.numpy().tolist()
        [[0.5]]
    """
    if name == "sgd":
        return Sgd(variables, weight_decay, momentum)
    if name == "lars":
        return Lars(variables, weight_decay, momentum, trust_coefficient, lars_update_all)
    if name == "adamw":
        return AdamW(variables, weight_decay, beta_1, beta_2, epsilon)
    if name == "lamb":
        kind = Lamb if keras.import_tensorflow_addons() is None else AddonsLamb
        return kind(variables, weight_decay, beta_1, beta_2, epsilon)
    raise ValueError(f"There is no optimizer '{name}'. Use one of {', '.join(OPTIMIZERS)}.")


def describe_variables(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return the path, the shape and `decayed` of each variable, for the file `variables.json` in the run folder."""
    return [
        {"variable": keras.find_variable_path(variable), "shape": list(variable.shape), "decayed": decayed}
        for variable, decayed in zip(optimizer.trained, optimizer.decayed)
    ]
