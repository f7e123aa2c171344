"""A linear classifier on h, trained by gradient steps on augmented images: alone, or together with the encoder.

Alone it is the linear probe with augmentation, together it is fine-tuning (SimCLR, section 4.2 and appendix B.5). The
last step is what is reported, and test images are looked at once, after it: nothing can be chosen by them.

Not here: the probe on plain h (`protocol.py`), how a view is drawn, files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from lowlevel_simclr.config.evaluation_settings import EvaluationSettings
from lowlevel_simclr.data import batches
from lowlevel_simclr.data.dataset import DataSet, Split
from lowlevel_simclr.data.transform import UNSCALED, PixelScaling
from lowlevel_simclr.data.views import Views
from lowlevel_simclr.evaluation import represent
from lowlevel_simclr.optim import optimizers, schedule
from lowlevel_simclr.runtime import keras

ViewsOf = Callable[[int], Views]  # the seed -> how its views are drawn


class Recipe(NamedTuple):
    """How a classifier is trained; the learning rate falls to 0 along a cosine, without warm-up or weight decay.

    steps: updates. batch_size: images an update, fewer where there are fewer. optimizer: a name of
    `optimizers.build_optimizer`. learning_rate: the first one. h_length: what fine-tuning brings h to
    (`scale_h_to_length`), None where it stays as it is.
    """

    steps: int
    batch_size: int
    optimizer: str
    learning_rate: float
    h_length: float | None = None


class Trial(NamedTuple):
    """One training with labels.

    seed: draws its labels, their order and its views. fraction: the share of every class's labels that it sees.
    """

    seed: int
    fraction: float = 1.0


# The paper's: SGD with momentum 0.9, learning rate 0.05 B / 256, no regularisation (appendix B.5). The number of steps
# is what two CPU cores can do in minutes; it is the same for every share of the labels. A step of the kernel moves the
# logits by learning rate times |h|^2, and |h| is 66 after 20 epochs of ResNet-50 by AdamW: left so, the kernel diverges
# and takes the encoder with it (24 % from 5,000 labels, below k-NN). At length 10 it is 2.5.
FINE_TUNING = Recipe(
    EvaluationSettings.finetune_steps,
    EvaluationSettings.finetune_batch_size,
    "sgd",
    EvaluationSettings.finetune_learning_rate,
    h_length=10.0,
)
SCALED_BY = 2000  # images by which h is brought to that length
# On columns of h brought to variance 1, where a rate that is right for every width is one of AdamW's.
PROBING = Recipe(0, 256, "adamw", 1e-2)


class Diverged(ArithmeticError):
    """Training with labels produced a number that is none; the text says what to do."""


@dataclasses.dataclass(frozen=True)
class Classifier:
    """f, and softmax(((h - centre) / scale) kernel + bias) on its h.

    encoder: f, in float32. frozen: whether only kernel and bias are trained. kernel: (d, classes). bias: (classes,).
    centre, scale: (d,) float32, fixed.
    """

    encoder: tf.keras.Model
    frozen: bool
    kernel: tf.Variable
    bias: tf.Variable
    centre: np.ndarray
    scale: np.ndarray

    def logits(self, h: tf.Tensor) -> tf.Tensor:
        """(B, d) -> (B, classes)."""
        return (h - self.centre) / self.scale @ self.kernel + self.bias

    def trained(self) -> list[Any]:
        """The variables that training moves."""
        own = [self.kernel, self.bias]
        return own if self.frozen else [*self.encoder.trainable_variables, *own]


def build_classifier(
    encoder: tf.keras.Model, classes: int, frozen: bool, standard: tuple[np.ndarray, np.ndarray] | None = None
) -> Classifier:
    """A classifier that says nothing yet: its kernel is 0.

    Args:
        encoder: f.
        classes: how many there are to tell apart.
        frozen: train kernel and bias only.
        standard: what is taken from h and what it is divided by then, (d,) each; None for 0 and 1.
    """
    width = encoder.output_shape[-1]
    centre, scale = standard if standard else (np.zeros(width, np.float32), np.ones(width, np.float32))
    return Classifier(
        encoder, frozen, tf.Variable(tf.zeros((width, classes))), tf.Variable(tf.zeros(classes)), centre, scale
    )


# Training


class ClassifierTrainer:
    """Trains one classifier again and again, each time from where it was made, with one graph for all of them."""

    def __init__(self, classifier: Classifier, recipe: Recipe) -> None:
        """Remembers the weights that every training starts from."""
        self.classifier, self.recipe = classifier, recipe
        self.optimizer = optimizers.build_optimizer(recipe.optimizer, classifier.trained())
        self.done = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._start = classifier.encoder.get_weights()
        self._step = tf.function(self._one_step, autograph=False, reduce_retracing=True)

    def reset(self) -> None:
        """Everything as it was before the first step."""
        if not self.classifier.frozen:
            self.classifier.encoder.set_weights(self._start)
        own = (self.classifier.kernel, self.classifier.bias, self.done, *self.optimizer.variables)
        for variable in own:
            variable.assign(tf.zeros_like(variable))

    def train(self, images: Any, labels: np.ndarray, views: Views, seed: int) -> None:
        """From the start through every step.

        Args:
            images: (n, H, W, C) uint8.
            labels: (n,) int64.
            views: draws two views of every image, of which the first is used.
            seed: of the order of the images.

        Raises:
            Diverged: the loss is not finite.
        """
        self.reset()
        size, held = min(self.recipe.batch_size, len(labels)), tf.constant(labels)
        loss = tf.constant(0.0)
        for epoch, index, batch in batches.make_batches(images, size, seed, 0, self.recipe.steps):
            loss = self._step(views(epoch, index, batch)[:size], tf.gather(held, index))
        if not np.isfinite(loss.numpy()):
            raise Diverged(
                f"the classifier's loss is {loss.numpy()} after {self.recipe.steps} steps at a learning rate of "
                f"{self.recipe.learning_rate:g}: give a lower one"
            )

    def _one_step(self, x: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Views (B, S, S, C) and labels (B,) -> the mean cross-entropy; one update."""
        variables = [keras.unwrap_variable(variable) for variable in self.classifier.trained()]
        with tf.GradientTape(watch_accessed_variables=False) as tape:  # what is frozen keeps no activations
            tape.watch(variables)
            h = self.classifier.encoder(x, training=not self.classifier.frozen)
            logits = self.classifier.logits(tf.cast(h, tf.float32))
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        gradients = tape.gradient(loss, variables)
        rate = schedule.compute_learning_rate(self.done, self.recipe.learning_rate, 0, self.recipe.steps)
        self.optimizer.apply(gradients, rate)
        self.done.assign_add(1)
        return loss

    def accuracy(self, test: Split, scaling: PixelScaling) -> float:
        """Share of the test images that are told right, by their h in inference mode and the test transform."""
        h = represent.compute_h(self.classifier.encoder, test.images, scaling=scaling)
        return float(np.mean(self.classifier.logits(h).numpy().argmax(axis=1) == test.labels))


# The two protocols


def select_labelled_rows(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """The rows whose labels may be used: the same share of every class, drawn by the seed, one at least.

    Args:
        labels: (n,) class numbers.
        fraction: in (0, 1]; 1 gives every row.
        seed: of the draw.

    Returns:
        Rows in ascending order, int64.

    Raises:
        ValueError: the fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"a fraction of {fraction} of the labels is none: give more than 0 and at most 1")
    random = np.random.default_rng(seed)
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    chosen = [random.permutation(own)[: max(1, round(fraction * len(own)))] for own in rows]
    return np.sort(np.concatenate(chosen))


def draw_share(train: Split, trial: Trial) -> tuple[Any, np.ndarray]:
    """The images and labels that a trial sees; the images as they are where it sees all."""
    rows = select_labelled_rows(train.labels, trial.fraction, trial.seed)
    images = train.images if len(rows) == len(train.labels) else train.images[rows]
    return images, train.labels[rows]


def fine_tune(
    encoder: tf.keras.Model,
    images: DataSet,
    trials: Sequence[Trial],
    views_of: ViewsOf,
    recipe: Recipe,
    scaling: PixelScaling = UNSCALED,
) -> Iterator[tuple[Trial, float]]:
    """Encoder and classifier trained together on a share of the labels: test accuracy of each trial.

    The encoder has its weights back afterwards.

    Args:
        encoder: f in float32.
        images: labelled; the train split is learned from, the test split is looked at after the last step.
        trials: what is trained, one after the other and each from the encoder as it was given.
        views_of: how training images are augmented.
        recipe: how it is trained.
        scaling: of the pixels, see `transform.PixelScaling`.

    Yields:
        trial, accuracy in [0, 1].

    Raises:
        Diverged: the loss is not finite.
    """
    standard = scale_h_to_length(encoder, images.train, recipe.h_length, scaling) if recipe.h_length else None
    teacher = ClassifierTrainer(
        build_classifier(encoder, count_classes(images), frozen=False, standard=standard), recipe
    )
    views = {seed: views_of(seed) for seed in {trial.seed for trial in trials}}
    for trial in trials:
        teacher.train(*draw_share(images.train, trial), views[trial.seed], trial.seed)
        yield trial, teacher.accuracy(images.test, scaling)
    teacher.reset()


def probe_on_views(
    encoder: tf.keras.Model,
    h: np.ndarray,
    images: DataSet,
    trials: Sequence[Trial],
    views_of: ViewsOf,
    recipe: Recipe,
    scaling: PixelScaling = UNSCALED,
) -> Iterator[tuple[Trial, float]]:
    """The linear probe with augmentation: a classifier on the frozen h of views of the train split.

    Args:
        encoder: f in float32, in inference mode throughout.
        h: (n, d) of the train split as it is; its columns' means and deviations bring h to mean 0 and variance 1.
        images: labelled.
        trials: what is trained, one after the other.
        views_of: how training images are augmented.
        recipe: how it is trained.
        scaling: of the pixels, see `transform.PixelScaling`.

    Yields:
        trial, accuracy in [0, 1].

    Raises:
        Diverged: the loss is not finite.
        protocol.EncoderChanged: the encoder was not frozen meanwhile.
    """
    before = represent.hash_weights(encoder)
    deviation = h.std(axis=0)
    standard = h.mean(axis=0), np.where(deviation > 1e-6, deviation, 1).astype(np.float32)
    teacher = ClassifierTrainer(
        build_classifier(encoder, count_classes(images), frozen=True, standard=standard), recipe
    )
    for trial in trials:
        teacher.train(*draw_share(images.train, trial), views_of(trial.seed), trial.seed)
        accuracy = teacher.accuracy(images.test, scaling)
        represent.refuse_changed_encoder(encoder, before)
        yield trial, accuracy


def scale_h_to_length(
    encoder: tf.keras.Model, train: Split, length: float, scaling: PixelScaling = UNSCALED
) -> tuple[np.ndarray, np.ndarray]:
    """What is taken from h and what it is divided by, (d,) each, for its root mean squared length to be `length`.

    One number for all columns, so that h keeps its shape. No label is looked at.

    Args:
        encoder: f, in inference mode.
        train: the split, of which 2,000 images are looked at, evenly spread.
        length: of h less its mean.
        scaling: of the pixels, see `transform.PixelScaling`.
    """
    rows = np.unique(np.linspace(0, len(train.labels) - 1, SCALED_BY).astype(np.int64))
    h = represent.compute_h(encoder, train.images[rows], scaling=scaling)
    centre = h.mean(axis=0)
    found = float(np.sqrt(np.mean(np.sum(np.square(h - centre, dtype=np.float64), axis=1))))
    scale = found / length if found > 1e-6 else 1.0  # where all h are the same there is nothing to scale
    return centre, np.full_like(centre, scale)


def count_classes(images: DataSet) -> int:
    """How many classes there are to tell apart."""
    return int(max(images.train.labels.max(), images.test.labels.max())) + 1
