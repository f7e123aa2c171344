"""The evaluation protocols that papers report, applied to the encoder of a run.

Two protocols classify the output h of the frozen encoder, whose weights do not change: k nearest neighbours (k-NN), and
logistic regression (the linear probe). A third one trains the linear probe on randomly augmented images (views). The
fourth one, fine-tuning, trains encoder and classifier together on a share of the labels. If the encoder must be frozen,
its weights are hashed before and after, and compared.

The run folder keeps h, and the accuracies that take long to measure, so a stopped evaluation can continue. No test
label influences any choice. The accuracy of a training is always that after its last step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from lowlevel_simclr.config.evaluation_settings import EvaluationSettings
from lowlevel_simclr.config.settings import ViewRecipe
from lowlevel_simclr.data.catalog import keep_labelled
from lowlevel_simclr.data.dataset import DataSet, find_labelled, has_labels
from lowlevel_simclr.data.transform import PixelScaling, find_transform
from lowlevel_simclr.data.views import Views, compile_views
from lowlevel_simclr.evaluation import cache, fine_tune, represent
from lowlevel_simclr.evaluation.baselines import Baseline, describe_encoder, join_results, measure_baselines
from lowlevel_simclr.evaluation.cache import ScoreStore
from lowlevel_simclr.evaluation.fine_tune import Trial
from lowlevel_simclr.evaluation.record import Record
from lowlevel_simclr.evaluation.summary import FROZEN, measure_frozen, summarise
from lowlevel_simclr.model.errors import ModelError


@dataclasses.dataclass(frozen=True)
class Options:
    """The settings of one evaluation. They are not part of the run's configuration.

    Attributes:
        protocols: names from `config.choices.PROTOCOLS`.
        fractions: shares of the labels for fine-tuning, in (0, 1].
        seeds: how many times to make each random training: with the seed of the run, the next seed and so on.
        finetune: the settings of fine-tuning.
        probe_passes: passes over the train split for the linear probe that is trained on views.
    """

    protocols: tuple[str, ...] = EvaluationSettings.protocol
    fractions: tuple[float, ...] = EvaluationSettings.label_fraction
    seeds: int = EvaluationSettings.seeds
    finetune: fine_tune.Recipe = fine_tune.FINE_TUNING
    probe_passes: int = EvaluationSettings.probe_passes


DEFAULTS = Options()


@dataclasses.dataclass(frozen=True)
class Subject:
    """The encoder to evaluate, and the properties of its run that an evaluation needs.

    Attributes:
        folder: the run folder.
        step: the number of steps that the encoder was trained.
        encoder: the encoder f with the weights of that step, in float32.
        build_untrained: function that returns the encoder as it was before the first step. It raises ModelError if the
            file of its initial weights can no longer be used.
        images: the data set of the run.
        seed: the seed of the run.
        train_on: "train" or "all", the splits on which the run trained.
        scaling: the scaling of the pixels.
        recipe: how the run draws its views (random augmentations).
        compile_views: whether XLA may compile the views.
        config_hash: the hash of the run's configuration.
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


def evaluate_subject(subject: Subject, options: Options = DEFAULTS, out: Path | None = None) -> dict[str, Any]:
    """Run every protocol that was asked for, and add the results to evaluation.json.

    Args:
        subject: the encoder to evaluate.
        options: the settings of the evaluation.
        out: the file for the results. None means the run's evaluation.json. If that file cannot be written, only a
            warning is printed.

    Returns:
        All of evaluation.json.

    Raises:
        RunError: if a file of the run folder cannot be read, or `out` cannot be written.
        EncoderChanged: if the weights of a frozen encoder changed.
        Diverged: if the loss of a training with labels became NaN or infinite, because its learning rate is too high.
    """
    record = Record(subject.folder, subject.step, out)
    results = record.add(evaluate_frozen(subject, options))
    if has_labels(subject.images) and "linear-augmented" in options.protocols:
        results = record.add(evaluate_augmented(subject, options))
    if has_labels(subject.images) and "finetune" in options.protocols:
        results = record.add(evaluate_fine_tuned(subject, options))
    return results


def evaluate_frozen(subject: Subject, options: Options) -> dict[str, Any]:
    """Measure k-NN and the linear probe, for the trained encoder, the untrained encoder and the pixels."""
    images, asked = subject.images, set(FROZEN) & set(options.protocols)
    h = {"": _represent(subject, "trained", subject.step, subject.encoder)} if asked else {}
    found = measure_frozen(h, images, subject.train_on, _print, options.protocols, options.seeds)
    found = join_results(found, measure_baselines(_find_untrained(subject), images, _print, asked) if asked else {})
    transform = find_transform(subject.encoder, subject.scaling).describe(images.train.images)
    return {**found, "transform": transform}


def _find_untrained(subject: Subject) -> Baseline | None:
    """Return the untrained encoder as a baseline, or None if the file of its weights can no longer be used."""
    try:
        encoder = subject.build_untrained()
    except ModelError as error:
        _print(f"warning: The untrained encoder is left out. {error}")
        return None
    made_of = describe_encoder(encoder, subject.images, subject.scaling)
    return Baseline(made_of, lambda: _represent(subject, "untrained", 0, encoder))


def _represent(subject: Subject, kind: str, step: int, encoder: tf.keras.Model) -> represent.Represented:
    """Return h of an encoder of the run. Read it from the run folder if it is there."""
    return cache.represent_cached(
        subject.folder, kind, step, subject.config_hash, encoder, subject.images, subject.scaling, _print
    )


def evaluate_augmented(subject: Subject, options: Options) -> dict[str, Any]:
    """Measure the linear probe trained on views. Return the mean accuracy over the seeds, and the spread."""
    images, encoder = keep_labelled(subject.images), subject.encoder
    h = _represent(subject, "trained", subject.step, encoder).train[find_labelled(subject.images.train)]

    def title_of(trial: Trial) -> str:
        return f"linear probe, trained on views, seed {trial.seed}"

    per_pass = max(1, len(images.train.labels) // fine_tune.PROBING.batch_size)
    recipe = fine_tune.PROBING._replace(steps=options.probe_passes * per_pass)

    def measure(trials: Sequence[Trial]) -> Iterator[tuple[Trial, float]]:
        views_of = make_views_of_seed(subject)
        return fine_tune.probe_on_views(encoder, h, images, trials, views_of, recipe, subject.scaling, title_of)

    store = _open_store(subject, "linear-augmented", recipe)
    trials = [Trial(seed) for seed in _list_seeds(subject, options)]
    scores = measure_missing(store, trials, measure, title_of)
    found = summarise_trials(list(scores.values()), recipe)
    return {"linear_augmented": found["mean"], "seeds": {"linear_augmented": found}}


def evaluate_fine_tuned(subject: Subject, options: Options) -> dict[str, Any]:
    """Measure fine-tuning on each share of the labels.

    Return for each share the mean accuracy over the seeds, and the spread.
    """
    recipe, encoder, images = options.finetune, subject.encoder, keep_labelled(subject.images)

    def title_of(trial: Trial) -> str:
        return f"fine-tuning on {100 * trial.fraction:g}% of the labels, seed {trial.seed}"

    def measure(trials: Sequence[Trial]) -> Iterator[tuple[Trial, float]]:
        views_of = make_views_of_seed(subject)
        return fine_tune.fine_tune(encoder, images, trials, views_of, recipe, subject.scaling, title_of)

    store = _open_store(subject, "finetune", recipe)
    trials = [Trial(seed, fraction) for seed in _list_seeds(subject, options) for fraction in options.fractions]
    scores = measure_missing(store, trials, measure, title_of)
    found = {
        f"{fraction:g}": summarise_trials([scores[trial] for trial in trials if trial.fraction == fraction], recipe)
        for fraction in options.fractions
    }
    return {"finetune": {fraction: each["mean"] for fraction, each in found.items()}, "seeds": {"finetune": found}}


def summarise_trials(accuracies: Sequence[float], recipe: fine_tune.Recipe) -> dict[str, Any]:
    """Return the entry of evaluation.json for some trainings with labels.

    It holds the mean, the spread and the number of the accuracies, and the settings of the trainings.
    """
    return {**summarise(accuracies), "recipe": recipe._asdict()}


def measure_missing(
    store: ScoreStore,
    trials: Sequence[Trial],
    measure: Callable[[Sequence[Trial]], Iterator[tuple[Trial, float]]],
    title_of: fine_tune.TitleOf,
) -> dict[Trial, float]:
    """Return the accuracy of each trial. Measure those that the run folder does not hold, and store each one at once.

    Args:
        store: the accuracies that the run folder holds.
        trials: the trials whose accuracy is wanted.
        measure: a function that takes some trials and returns an iterator of (trial, accuracy).
        title_of: a function that takes a trial and returns its name, which is printed.
    """
    known = {trial: store.get(*trial) for trial in trials}
    scores = {trial: accuracy for trial, accuracy in known.items() if accuracy is not None}
    for trial, accuracy in scores.items():
        _print(f"{title_of(trial)}: {accuracy:.3f} (from an earlier evaluation)")
    missing = [trial for trial in trials if trial not in scores]
    if missing:
        _print(f"{store.protocol}: {len(missing)} training{'s' * (len(missing) > 1)} with labels ...")
    for trial, accuracy in measure(missing) if missing else ():
        store.put(accuracy, *trial)
        scores[trial] = accuracy
        _print(f"{title_of(trial)}: {accuracy:.3f}")
    return scores


def make_views_of_seed(subject: Subject) -> fine_tune.ViewsOf:
    """Return a function that takes a seed and returns the function that augments images for a training with labels.

    The images get the run's crops and flips, and keep their colours (SimCLR, appendix B.5).
    """
    recipe = dataclasses.replace(subject.recipe, jitter_probability=0.0, grey_probability=0.0, blur_probability=0.0)

    def make_views(seed: int) -> Views:
        return compile_views(
            seed=seed,
            recipe=recipe,
            size=subject.encoder.input_shape[1],
            dtype=tf.float32,
            scaling=subject.scaling,
            jit_compile=subject.compile_views,
        )

    return make_views


def _open_store(subject: Subject, name: str, recipe: fine_tune.Recipe) -> ScoreStore:
    """Return the store of one protocol's accuracies in the run folder."""
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
