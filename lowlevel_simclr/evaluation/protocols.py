"""The protocols that people report, on the encoder of a run.

k-NN and the linear probe on frozen h, the linear probe trained on views, fine-tuning on a share of the labels. The
encoder is hashed before and after where it is frozen. h and the accuracies that take long stay in the run folder, so an
evaluation that was stopped goes on. No test label decides anything; the last step is reported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from lowlevel_simclr import stock
from lowlevel_simclr.config.evaluation_settings import EvaluationSettings
from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.data.dataset import DataSet, has_labels
from lowlevel_simclr.data.transform import PixelScaling, find_transform
from lowlevel_simclr.data.views import Views, compile_views
from lowlevel_simclr.evaluation import cache, fine_tune, represent
from lowlevel_simclr.evaluation.cache import ScoreStore
from lowlevel_simclr.evaluation.fine_tune import Trial
from lowlevel_simclr.evaluation.summary import format_table, measure_frozen, summarise
from lowlevel_simclr.run.results import merge_evaluation


@dataclasses.dataclass(frozen=True)
class Options:
    """What belongs to one evaluation and not to the run.

    seeds: how often what draws is done, with the run's seed, the next one and so on.
    """

    protocols: tuple[str, ...] = EvaluationSettings.protocol
    fractions: tuple[float, ...] = EvaluationSettings.label_fraction
    seeds: int = EvaluationSettings.seeds
    finetune: fine_tune.Recipe = fine_tune.FINE_TUNING
    probe_passes: int = EvaluationSettings.probe_passes


DEFAULTS = Options()


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is evaluated: the encoder of a run after a step, on the images of the run.

    encoder: with the weights of `step`, in float32. build_untrained: makes it as it was before the first step.
    recipe: of the run's views. compile_views: whether XLA may compile them.
    """

    folder: Path
    step: int
    encoder: tf.keras.Model
    build_untrained: Callable[[], tf.keras.Model]
    images: DataSet
    seed: int
    train_on: str
    scaling: PixelScaling
    recipe: ViewRecipe
    compile_views: bool
    config_hash: str


def evaluate_subject(subject: Subject, options: Options = DEFAULTS) -> str:
    """Measure by every protocol that was asked for, add the results to evaluation.json, and return the table.

    Raises:
        RunError: a file of the run folder cannot be read or written.
        EncoderChanged: the encoder was not frozen.
        Diverged: a learning rate is too high.
    """
    results = evaluate_frozen(subject, options)
    if has_labels(subject.images) and "linear-augmented" in options.protocols:
        results = merge_evaluation(subject.folder, subject.step, evaluate_augmented(subject, options))
    if has_labels(subject.images) and "finetune" in options.protocols:
        results = merge_evaluation(subject.folder, subject.step, evaluate_fine_tuned(subject, options))
    return format_table(results)


def evaluate_frozen(subject: Subject, options: Options) -> dict[str, Any]:
    """k-NN and the linear probe, beside the untrained encoder and pixels; the whole of evaluation.json."""
    images = subject.images
    h = {}
    if {"knn", "linear"} & set(options.protocols):
        h = {
            "": _represent(subject, "trained", subject.step, subject.encoder),
            "_untrained": _represent(subject, "untrained", 0, subject.build_untrained()),
            "_pixels": represent.represent_pixels(images),
        }
    found = measure_frozen(h, images, subject.seed, subject.train_on, _print, options.protocols, options.seeds)
    transform = find_transform(subject.encoder, subject.scaling).describe(images.train.images.shape)
    return merge_evaluation(subject.folder, subject.step, {**found, "transform": transform})


def _represent(subject: Subject, kind: str, step: int, encoder: tf.keras.Model) -> represent.Represented:
    """h of an encoder of the run, from the run folder where it is there."""
    return cache.represent_cached(
        subject.folder, kind, step, subject.config_hash, encoder, subject.images, subject.scaling
    )


def evaluate_augmented(subject: Subject, options: Options) -> dict[str, Any]:
    """The linear probe trained on views: its mean over the seeds, and their spread."""
    images, encoder = subject.images, subject.encoder
    h = _represent(subject, "trained", subject.step, encoder)
    per_pass = max(1, len(images.train.labels) // fine_tune.PROBING.batch_size)
    recipe = fine_tune.PROBING._replace(steps=options.probe_passes * per_pass)

    def measure(trials: Sequence[Trial]) -> Iterator[tuple[Trial, float]]:
        views_of = make_views_of_seed(subject)
        return fine_tune.probe_on_views(encoder, h.train, images, trials, views_of, recipe, subject.scaling)

    store = _open_store(subject, "linear-augmented", recipe)
    trials = [Trial(seed) for seed in _list_seeds(subject, options)]
    scores = measure_missing(store, trials, measure, lambda trial: "linear probe, trained on views")
    found = summarise_trials(list(scores.values()), recipe)
    return {"linear_augmented": found["mean"], "seeds": {"linear_augmented": found}}


def evaluate_fine_tuned(subject: Subject, options: Options) -> dict[str, Any]:
    """Fine-tuning on each share of the labels: means over the seeds, and their spread."""
    recipe = options.finetune

    def measure(trials: Sequence[Trial]) -> Iterator[tuple[Trial, float]]:
        views_of = make_views_of_seed(subject)
        return fine_tune.fine_tune(subject.encoder, subject.images, trials, views_of, recipe, subject.scaling)

    store = _open_store(subject, "finetune", recipe)
    trials = [Trial(seed, fraction) for seed in _list_seeds(subject, options) for fraction in options.fractions]
    scores = measure_missing(
        store, trials, measure, lambda trial: f"fine-tuning on {100 * trial.fraction:g}% of the labels"
    )
    found = {
        f"{fraction:g}": summarise_trials([scores[trial] for trial in trials if trial.fraction == fraction], recipe)
        for fraction in options.fractions
    }
    return {"finetune": {fraction: each["mean"] for fraction, each in found.items()}, "seeds": {"finetune": found}}


def summarise_trials(accuracies: Sequence[float], recipe: fine_tune.Recipe) -> dict[str, Any]:
    """What evaluation.json holds of some trainings with labels: mean, spread and number, and how they were trained."""
    return {**summarise(accuracies), "recipe": recipe._asdict()}


def measure_missing(
    store: ScoreStore,
    trials: Sequence[Trial],
    measure: Callable[[Sequence[Trial]], Iterator[tuple[Trial, float]]],
    title: Callable[[Trial], str],
) -> dict[Trial, float]:
    """The accuracy of each trial: what the run folder holds of them, and the rest measured and kept there at once."""
    known = {trial: store.get(*trial) for trial in trials}
    scores = {trial: accuracy for trial, accuracy in known.items() if accuracy is not None}
    for trial, accuracy in scores.items():
        _print(f"{title(trial)}, seed {trial.seed}: {accuracy:.3f} (measured before)")
    missing = [trial for trial in trials if trial not in scores]
    for trial, accuracy in measure(missing) if missing else ():
        store.put(accuracy, *trial)
        scores[trial] = accuracy
        _print(f"{title(trial)}, seed {trial.seed}: {accuracy:.3f}")
    return scores


def make_views_of_seed(subject: Subject) -> fine_tune.ViewsOf:
    """The seed -> training images for labels: the run's crops and flips, in its colours (SimCLR, appendix B.5)."""
    recipe = dataclasses.replace(subject.recipe, jitter_probability=0.0, grey_probability=0.0, blur_probability=0.0)

    def of_seed(seed: int) -> Views:
        return compile_views(
            seed=seed,
            recipe=recipe,
            size=subject.encoder.input_shape[1],
            dtype=tf.float32,
            implementation=stock,
            scaling=subject.scaling,
            jit_compile=subject.compile_views,
        )

    return of_seed


def _open_store(subject: Subject, name: str, recipe: fine_tune.Recipe) -> ScoreStore:
    """The accuracies of one protocol that the run folder holds."""
    images = subject.images
    made_of = {
        "config_hash": subject.config_hash,
        "weights": represent.hash_weights(subject.encoder),
        "images": [cache.fingerprint_split(split) for split in (images.train, images.test)],
        "recipe": recipe._asdict(),
    }
    return ScoreStore(subject.folder, name, made_of)


def _list_seeds(subject: Subject, options: Options) -> list[int]:
    return [subject.seed + more for more in range(options.seeds)]


def _print(text: str) -> None:
    print(text, flush=True)
