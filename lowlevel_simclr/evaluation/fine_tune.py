"""Trains a linear classifier on the encoder's output (h), with augmented images: alone, or together with the encoder.

Training the classifier alone is called the linear probe with augmentation. Training both is called fine-tuning (SimCLR,
section 4.2 and appendix B.5). The reported accuracy is that of the last step. The test images are used only once, after
that step, so they cannot influence any choice.

The linear probe without augmentation is in `linear_probe.py`. The caller provides the function that augments the
images, and writes the results into files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from lowlevel_simclr.config.evaluation_settings import EvaluationSettings
from lowlevel_simclr.data import batches
from lowlevel_simclr.data.catalog import select_rows
from lowlevel_simclr.data.dataset import DataSet, Split
from lowlevel_simclr.data.transform import UNSCALED, PixelScaling
from lowlevel_simclr.data.views import Views
from lowlevel_simclr.evaluation import represent
from lowlevel_simclr.optim import optimizers, schedule
from lowlevel_simclr.runtime import keras
from lowlevel_simclr.runtime.progress_bar import track

TitleOf = Callable[["Trial"], str]  # trial -> the title of its progress bar
ViewsOf = Callable[[int], Views]  # seed -> the function that makes augmented images (views) with that seed


class Recipe(NamedTuple):
    """How a classifier is trained.

    The learning rate falls to 0 along a cosine. There is no warm-up and no weight decay.

    Attributes:
        steps: the number of updates.
        batch_size: images in an update. If there are fewer images, an update takes all of them.
        optimizer: a name that `optimizers.build_optimizer` knows.
        learning_rate: the learning rate of the first step.
        h_length: the length (L2 norm) to which fine-tuning scales h (`scale_h_to_length`), or None to leave h unscaled.
    """

    steps: int
    batch_size: int
    optimizer: str
    learning_rate: float
    h_length: float | None = None


class Trial(NamedTuple):
    """One training with labels.

    Attributes:
        seed: the seed from which the used labels, the order of the images and their augmentations are drawn.
        fraction: the share of the labels of every class, in (0, 1].
    """

    seed: int
    fraction: float = 1.0


# The recipe of the paper: SGD with momentum 0.9, learning rate 0.05 B / 256, no regularisation (appendix B.5). The
# number of steps is our choice, so that two CPU cores need only minutes. It is the same for every share of the labels.
#
# One update of the classifier's weights (the kernel) changes the logits by about learning rate times |h|^2. After 20
# epochs of SimCLR training, a ResNet-50 trained with AdamW gives |h| = 66. At that length the kernel diverges and ruins
# the encoder: the accuracy with 5,000 labels is 24 %, below that of k-NN. There, learning rate times |h|^2 is 109. So
# fine-tuning scales h to the length 10, where it is only 2.5.
FINE_TUNING = Recipe(
    EvaluationSettings.finetune_steps,
    EvaluationSettings.finetune_batch_size,
    "sgd",
    EvaluationSettings.finetune_learning_rate,
    h_length=10.0,
)
SCALED_BY = 2000  # images on which `scale_h_to_length` measures the length of h
# The linear probe scales the columns of h to variance 1. With AdamW, one learning rate suits any number of columns.
PROBING = Recipe(0, 256, "adamw", 1e-2)


class Diverged(ArithmeticError):
    """A loss of a training with labels became NaN or infinite. The message says what to do."""


@dataclasses.dataclass(frozen=True)
class Classifier:
    """The encoder f, and a classifier on its output h: softmax(((h - centre) / scale) kernel + bias).

    Attributes:
        encoder: the encoder f, in float32.
        frozen: whether training changes only the kernel and the bias.
        kernel: (d, classes) float32.
        bias: (classes,) float32.
        centre: (d,) float32. Training does not change it.
        scale: (d,) float32. Training does not change it.
    """

    encoder: tf.keras.Model
    frozen: bool
    kernel: tf.Variable
    bias: tf.Variable
    centre: np.ndarray
    scale: np.ndarray

    def compute_logits(self, h: tf.Tensor) -> tf.Tensor:
        """Return the logits (B, classes) of h (B, d)."""
        return (h - self.centre) / self.scale @ self.kernel + self.bias

    def list_trained_variables(self) -> list[Any]:
        """Return the variables that training changes."""
        own = [self.kernel, self.bias]
        return own if self.frozen else [*self.encoder.trainable_variables, *own]


def build_classifier(
    encoder: tf.keras.Model, classes: int, frozen: bool, standard: tuple[np.ndarray, np.ndarray] | None = None
) -> Classifier:
    """Return a classifier whose kernel and bias are 0.

    Args:
        encoder: the encoder f.
        classes: the number of classes.
        frozen: whether training changes only the kernel and the bias.
        standard: centre and scale of h, (d,) each, or None for 0 and 1.
    """
    width = encoder.output_shape[-1]
    centre, scale = standard if standard else (np.zeros(width, np.float32), np.ones(width, np.float32))
    return Classifier(
        encoder, frozen, tf.Variable(tf.zeros((width, classes))), tf.Variable(tf.zeros(classes)), centre, scale
    )


# Training


class ClassifierTrainer:
    """Trains one classifier.

    It can train many times from the same initial weights, and TensorFlow traces the step only once.
    """

    def __init__(self, classifier: Classifier, recipe: Recipe) -> None:
        """Store the encoder's present weights. Every training starts from them."""
        self.classifier, self.recipe = classifier, recipe
        self.optimizer = optimizers.build_optimizer(recipe.optimizer, classifier.list_trained_variables())
        self.done = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._start = classifier.encoder.get_weights()
        self._step = tf.function(self._make_update, autograph=False, reduce_retracing=True)

    def reset(self) -> None:
        """Set everything back to its state before the first step."""
        if not self.classifier.frozen:
            self.classifier.encoder.set_weights(self._start)
        own = (self.classifier.kernel, self.classifier.bias, self.done, *self.optimizer.variables)
        for variable in own:
            variable.assign(tf.zeros_like(variable))

    def train(self, images: Any, labels: np.ndarray, views: Views, seed: int, title: str = "") -> None:
        """Train from the initial weights, for all steps of the recipe.

        Args:
            images: (n, H, W, C) uint8, see `batches.make_batches`.
            labels: (n,) int64.
            views: function that makes two views (random augmentations) of every image. Training uses the first view.
            seed: the seed of the order of the images.
            title: shown with the progress. Without it, no progress is shown.

        Raises:
            Diverged: if the loss is NaN or infinite.
        """
        self.reset()
        size, held = min(self.recipe.batch_size, len(labels)), tf.constant(labels)
        loss = tf.constant(0.0)
        made = batches.make_batches(images, size, seed, 0, self.recipe.steps)
        for epoch, index, *batch in track(made, title, self.recipe.steps, "steps", compiles=True):
            loss = self._step(views(epoch, index, *batch)[:size], tf.gather(held, index))
        if not np.isfinite(loss.numpy()):
            raise Diverged(
                f"The loss of the classifier became NaN or infinite ({loss.numpy()}) within {self.recipe.steps} steps "
                f"at a learning rate of {self.recipe.learning_rate:g}. Use a lower learning rate "
                "(--finetune-learning-rate for fine-tuning)."
            )

    def _make_update(self, x: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Make one update from views (B, S, S, C) and labels (B,). Return the loss before the update."""
        variables = [keras.unwrap_variable(variable) for variable in self.classifier.list_trained_variables()]
        with tf.GradientTape(watch_accessed_variables=False) as tape:  # keeps no activations of a frozen encoder
            tape.watch(variables)
            h = self.classifier.encoder(x, training=not self.classifier.frozen)
            logits = self.classifier.compute_logits(tf.cast(h, tf.float32))
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        gradients = tape.gradient(loss, variables)
        rate = schedule.compute_learning_rate(self.done, self.recipe.learning_rate, 0, self.recipe.steps)
        self.optimizer.apply(gradients, rate)
        self.done.assign_add(1)
        return loss

    def measure_accuracy(self, test: Split, scaling: PixelScaling) -> float:
        """Return the accuracy on the test images, in [0, 1].

        The images go through the test transform (scaling and resizing), and the encoder runs in inference mode.

        Args:
            test: the test split, with labels.
            scaling: the scaling of the pixels.
        """
        h = represent.compute_h(self.classifier.encoder, test.images, scaling=scaling)
        return float(np.mean(self.classifier.compute_logits(h).numpy().argmax(axis=1) == test.labels))


# The two protocols


def select_labelled_rows(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return the numbers of the rows whose labels may be used.

    From every class, the function draws the same share of rows, and at least one row.

    Args:
        labels: (n,) class numbers.
        fraction: in (0, 1]. 1 gives every row.
        seed: the seed of the draw.

    Returns:
        Rows in ascending order, int64.

    Raises:
        ValueError: if the fraction is not in (0, 1].

    Example:
        >>> labels = np.array([0, 1] * 50)
        >>> len(select_labelled_rows(labels, 0.1, seed=0))
        10
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"The fraction of the labels is {fraction}, but it must be above 0 and at most 1.")
    random = np.random.default_rng(seed)
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    chosen = [random.permutation(own)[: max(1, round(fraction * len(own)))] for own in rows]
    return np.sort(np.concatenate(chosen))


def draw_share(train: Split, trial: Trial) -> tuple[Any, np.ndarray]:
    """Return the images and labels that a trial uses.

    If the trial uses all of them, the images are not copied.
    """
    rows = select_labelled_rows(train.labels, trial.fraction, trial.seed)
    images = train.images if len(rows) == len(train.labels) else select_rows(train.images, rows)
    return images, train.labels[rows]


def fine_tune(
    encoder: tf.keras.Model,
    images: DataSet,
    trials: Sequence[Trial],
    views_of: ViewsOf,
    recipe: Recipe,
    scaling: PixelScaling = UNSCALED,
    title_of: TitleOf = lambda trial: "",
) -> Iterator[tuple[Trial, float]]:
    """Train encoder and classifier together on a share of the labels. Yield the test accuracy of each training (trial).

    After the last trial, the encoder has its old weights again.

    Args:
        encoder: the encoder f, in float32.
        images: a data set with labels. Training uses the train split. The test split is used only after the last step.
        trials: the trainings to make, one after the other. Each starts from the weights that the encoder had when this
            function was called.
        views_of: a function that takes a seed and returns the function that augments the training images.
        recipe: how the classifier is trained.
        scaling: the scaling of the pixels.
        title_of: a function that takes a trial and returns the title of its progress bar.

    Yields:
        The trial, and its accuracy in [0, 1].

    Raises:
        Diverged: if the loss is NaN or infinite.
    """
    standard = scale_h_to_length(encoder, images.train, recipe.h_length, scaling) if recipe.h_length else None
    teacher = ClassifierTrainer(
        build_classifier(encoder, count_classes(images), frozen=False, standard=standard), recipe
    )
    views = {seed: views_of(seed) for seed in {trial.seed for trial in trials}}
    for trial in trials:
        teacher.train(*draw_share(images.train, trial), views[trial.seed], trial.seed, title_of(trial))
        yield trial, teacher.measure_accuracy(images.test, scaling)
    teacher.reset()


def probe_on_views(
    encoder: tf.keras.Model,
    h: np.ndarray,
    images: DataSet,
    trials: Sequence[Trial],
    views_of: ViewsOf,
    recipe: Recipe,
    scaling: PixelScaling = UNSCALED,
    title_of: TitleOf = lambda trial: "",
) -> Iterator[tuple[Trial, float]]:
    """Train a classifier on the frozen encoder's output for augmented images (the linear probe with augmentation).

    Yield the test accuracy of each training (trial).

    Args:
        encoder: the encoder f, in float32. It always runs in inference mode.
        h: (n, d), the encoder's output for the train split without augmentation. The mean and the standard deviation of
            each column of `h` are measured. The classifier subtracts this mean from the same column of its input, and
            divides by this standard deviation.
        images: a data set with labels.
        trials: the trainings to make, one after the other.
        views_of: a function that takes a seed and returns the function that augments the training images.
        recipe: how the classifier is trained.
        scaling: the scaling of the pixels.
        title_of: a function that takes a trial and returns the title of its progress bar.

    Yields:
        The trial, and its accuracy in [0, 1].

    Raises:
        Diverged: if the loss is NaN or infinite.
        EncoderChanged: if the weights of the encoder changed.
    """
    before = represent.hash_weights(encoder)
    deviation = h.std(axis=0)
    standard = h.mean(axis=0), np.where(deviation > 1e-6, deviation, 1).astype(np.float32)
    teacher = ClassifierTrainer(
        build_classifier(encoder, count_classes(images), frozen=True, standard=standard), recipe
    )
    for trial in trials:
        teacher.train(*draw_share(images.train, trial), views_of(trial.seed), trial.seed, title_of(trial))
        accuracy = teacher.measure_accuracy(images.test, scaling)
        represent.refuse_changed_encoder(encoder, before)
        yield trial, accuracy


def scale_h_to_length(
    encoder: tf.keras.Model, train: Split, length: float, scaling: PixelScaling = UNSCALED
) -> tuple[np.ndarray, np.ndarray]:
    """Return a centre and a scale, (d,) each, that bring h to a wanted length (L2 norm).

    With them, the root mean square length of (h - centre) / scale is `length`. The scale is one number for all columns,
    so the columns keep their proportions. The function uses no labels.

    Args:
        encoder: the encoder f. It runs in inference mode.
        train: the train split. The function uses at most 2,000 of its images, evenly spaced.
        length: the wanted length.
        scaling: the scaling of the pixels.
    """
    rows = np.unique(np.linspace(0, len(train.labels) - 1, SCALED_BY).astype(np.int64))
    h = represent.compute_h(encoder, train.images[rows], scaling=scaling)
    centre = h.mean(axis=0)
    found = float(np.sqrt(np.mean(np.sum(np.square(h - centre, dtype=np.float64), axis=1))))
    scale = found / length if found > 1e-6 else 1.0  # if all h are the same, there is nothing to scale
    return centre, np.full_like(centre, scale)


def count_classes(images: DataSet) -> int:
    """Return the number of classes of a data set."""
    return int(max(images.train.labels.max(), images.test.labels.max())) + 1
