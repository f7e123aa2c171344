"""python -m lowlevel_simclr.evaluate RUN: what the encoder of a run has learned, by the protocols people report.

k-NN and the linear probe on frozen h, the linear probe trained on views, fine-tuning on a share of the labels. The
encoder is hashed before and after where it is frozen. h and the accuracies that take long stay in the run folder, so an
evaluation that was stopped goes on. No test label decides anything; the last step is reported.
Everything is computed in float32, whatever the run was trained in.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow: its start-up notes are not the user's business

import tensorflow as tf

from lowlevel_simclr import (
    checkpoint,
    classifier,
    compat,
    data,
    encoder,
    export,
    h_store,
    protocol,
    runlog,
    stock,
)
from lowlevel_simclr.augment import two_views
from lowlevel_simclr.classifier import Trial
from lowlevel_simclr.command_line import FlagParser
from lowlevel_simclr.config import Config, ConfigError, config_hash, from_dict, replace, stored_side
from lowlevel_simclr.score_store import ScoreStore

DESCRIPTION = "Evaluates the encoder of a run by the protocols people report; results are added to evaluation.json."
PROTOCOLS = ("knn", "linear", "linear-augmented", "finetune")
EPILOG = """\
protocols:
  knn               cosine weighted k-NN, k = 20 and 200, on frozen h
  linear            logistic regression on frozen h (L-BFGS)
  linear-augmented  the same on h of crops and flips, --probe-passes times over the train split (AdamW)
  finetune          encoder and linear classifier together, on --label-fraction of every class (SGD)

examples:
  python -m lowlevel_simclr.evaluate runs/shapes
  python -m lowlevel_simclr.evaluate runs/shapes --protocol knn,linear,finetune --label-fraction 0.01,0.1,1 --seeds 3"""


@dataclasses.dataclass(frozen=True)
class Options:
    """What belongs to one evaluation and not to the run.

    seeds: how often what draws is done, with the run's seed, the next one and so on.
    """

    protocols: tuple[str, ...] = ("knn", "linear")
    fractions: tuple[float, ...] = (0.01, 0.1, 1.0)
    seeds: int = 1
    finetune: classifier.Recipe = classifier.FINE_TUNING
    probe_passes: int = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates, merges the result into the run's evaluation.json, prints it; returns the exit code."""
    parser = _parser()
    given = parser.parse_strictly(sys.argv[1:] if argv is None else argv)
    steps, size, rate = given.finetune_steps, given.finetune_batch_size, given.finetune_learning_rate
    recipe = classifier.FINE_TUNING._replace(steps=steps, batch_size=size, learning_rate=rate)
    options = Options(given.protocol, given.label_fraction, given.seeds, recipe, given.probe_passes)
    try:
        config = from_dict(runlog.read_config(given.run))
        print(evaluate(given.run, replace(config, data_dir=given.data_dir or config.data.data_dir), options))
    except (ConfigError, data.DataError, runlog.RunError, checkpoint.CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (protocol.EncoderChanged, classifier.Diverged) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def evaluate(folder: Path, config: Config, options: Options = Options()) -> str:
    """Evaluates the newest checkpoint of a run; returns the table that is shown.

    Raises:
        runlog.RunError: the run has no checkpoint, or one of another model.
        data.DataError: the images are not where they were.
        classifier.Diverged: a learning rate is too high.
    """
    if config.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    images = data.load(
        config.data.dataset,
        config.data.data_dir,
        config.train.seed,
        largest_side=stored_side(config),
        memory_limit=config.data.memory_limit,
        before=runlog.read_data(folder),
    )
    f = new_encoder(config, images)
    step = export.restore(folder, encoder=f)
    results = frozen(folder, config, options, images, f, step)
    if protocol.labelled(images) and "linear-augmented" in options.protocols:
        h = h_store.represent(folder, "trained", step, config_hash(config), f, images, *_scaling(config))
        results = runlog.merge_evaluation(folder, step, augmented(folder, config, options, images, f, h))
    if protocol.labelled(images) and "finetune" in options.protocols:
        results = runlog.merge_evaluation(folder, step, fine_tuned(folder, config, options, images, f))
    return protocol.table(results)


def new_encoder(config: Config, images: data.DataSet) -> tf.keras.Model:
    """f as it was before the first step, in float32."""
    compat.set_precision("float32")
    model, channels = config.model, images.train.images.shape[-1]
    return encoder.build(
        model.encoder, model.stem, model.image_size, channels, weights=model.weights, seed=config.train.seed
    )


# Protocols


def frozen(
    folder: Path, config: Config, options: Options, images: data.DataSet, f: tf.keras.Model, step: int
) -> dict[str, Any]:
    """k-NN and the linear probe, beside the untrained encoder and pixels; the whole of evaluation.json."""
    seed, train_on, scaling = config.train.seed, config.data.train_on, _scaling(config)
    said = protocol.transform(images.train.images.shape, config.model.image_size, *scaling)
    h = {}
    if {"knn", "linear"} & set(options.protocols):
        untrained = new_encoder(config, images)
        h = {
            "": h_store.represent(folder, "trained", step, config_hash(config), f, images, *scaling),
            "_untrained": h_store.represent(folder, "untrained", 0, config_hash(config), untrained, images, *scaling),
            "_pixels": protocol.pixels_of(images),
        }
    found = protocol.evaluate(h, images, seed, train_on, _say, options.protocols, options.seeds)
    return runlog.merge_evaluation(folder, step, {**found, "transform": said})


def augmented(
    folder: Path, config: Config, options: Options, images: data.DataSet, f: tf.keras.Model, h: protocol.Represented
) -> dict[str, Any]:
    """The linear probe trained on views: its mean over the seeds, and their spread."""
    per_pass = max(1, len(images.train.labels) // classifier.PROBING.batch_size)
    recipe = classifier.PROBING._replace(steps=options.probe_passes * per_pass)

    def measure(trials: Sequence[Trial]) -> Iterator[tuple[Trial, float]]:
        return classifier.probe_on_views(f, h.train, images, trials, views_of(config), recipe, *_scaling(config))

    store = _store(folder, "linear-augmented", config, images, f, recipe)
    trials = [Trial(seed) for seed in _seeds(config, options)]
    scores = measured(store, trials, measure, lambda trial: "linear probe, trained on views")
    found = summary(list(scores.values()), recipe)
    return {"linear_augmented": found["mean"], "seeds": {"linear_augmented": found}}


def fine_tuned(
    folder: Path, config: Config, options: Options, images: data.DataSet, f: tf.keras.Model
) -> dict[str, Any]:
    """Fine-tuning on each share of the labels: means over the seeds, and their spread."""

    def measure(trials: Sequence[Trial]) -> Iterator[tuple[Trial, float]]:
        return classifier.fine_tune(f, images, trials, views_of(config), options.finetune, *_scaling(config))

    store = _store(folder, "finetune", config, images, f, options.finetune)
    trials = [Trial(seed, fraction) for seed in _seeds(config, options) for fraction in options.fractions]
    scores = measured(store, trials, measure, lambda trial: f"fine-tuning on {100 * trial.fraction:g}% of the labels")
    found = {
        f"{fraction:g}": summary([scores[trial] for trial in trials if trial.fraction == fraction], options.finetune)
        for fraction in options.fractions
    }
    return {"finetune": {fraction: each["mean"] for fraction, each in found.items()}, "seeds": {"finetune": found}}


def summary(accuracies: Sequence[float], recipe: classifier.Recipe) -> dict[str, Any]:
    """What evaluation.json holds of some trainings with labels: mean, spread and number, and how they were trained."""
    return {**protocol.mean_and_spread(accuracies), "recipe": recipe._asdict()}


def measured(
    store: ScoreStore,
    trials: Sequence[Trial],
    measure: Callable[[Sequence[Trial]], Iterator[tuple[Trial, float]]],
    title: Callable[[Trial], str],
) -> dict[Trial, float]:
    """The accuracy of each trial: what the run folder holds of them, and the rest measured and kept there at once."""
    known = {trial: store.get(*trial) for trial in trials}
    scores = {trial: accuracy for trial, accuracy in known.items() if accuracy is not None}
    for trial, accuracy in scores.items():
        _say(f"{title(trial)}, seed {trial.seed}: {accuracy:.3f} (measured before)")
    missing = [trial for trial in trials if trial not in scores]
    for trial, accuracy in measure(missing) if missing else ():
        store.put(accuracy, *trial)
        scores[trial] = accuracy
        _say(f"{title(trial)}, seed {trial.seed}: {accuracy:.3f}")
    return scores


def views_of(config: Config) -> classifier.ViewsOf:
    """The seed -> training images for labels: the run's crops and flips, in its colours (SimCLR, appendix B.5)."""
    recipe = dataclasses.replace(config.views, jitter_probability=0.0, grey_probability=0.0, blur_probability=0.0)

    def of_seed(seed: int) -> classifier.Views:
        def views(epoch: tf.Tensor, index: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
            mean, std = _scaling(config)
            return two_views(
                images,
                epoch,
                index,
                seed=seed,
                recipe=recipe,
                size=config.model.image_size,
                dtype=tf.float32,
                implementation=stock,
                mean=mean,
                std=std,
            )

        return tf.function(views, jit_compile=config.train.xla != "off", autograph=False)

    return of_seed


def _store(
    folder: Path, name: str, config: Config, images: data.DataSet, f: tf.keras.Model, recipe: classifier.Recipe
) -> ScoreStore:
    """The accuracies of one protocol that the run folder holds."""
    made_of = {
        "config_hash": config_hash(config),
        "weights": protocol.weights_hash(f),
        "images": [h_store.fingerprint(split) for split in (images.train, images.test)],
        "recipe": recipe._asdict(),
    }
    return ScoreStore(folder, name, made_of)


def _seeds(config: Config, options: Options) -> list[int]:
    return [config.train.seed + more for more in range(options.seeds)]


def _scaling(config: Config) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    return config.model.input_mean, config.model.input_std


def _say(text: str) -> None:
    print(text, flush=True)


# Command line


def _parser() -> FlagParser:
    """The flags of one evaluation."""
    usage = "%(prog)s RUN [flags]"
    parser = FlagParser(prog="python -m lowlevel_simclr.evaluate", description=DESCRIPTION, epilog=EPILOG, usage=usage)
    recipe = classifier.FINE_TUNING
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder that training wrote")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data lie now (default: where training found them)")
    for flag, kind, default, metavar, text in (
        ("--protocol", _protocols, Options.protocols, "A,B", "what is measured"),
        ("--label-fraction", _fractions, Options.fractions, "X,Y", "shares of the labels that fine-tuning sees"),
        ("--seeds", _count, Options.seeds, "K", "seeds of what draws: labels, order and views"),
        ("--finetune-steps", _count, recipe.steps, "N", "steps of fine-tuning, whatever the share of the labels"),
        ("--finetune-batch-size", _count, recipe.batch_size, "N", "images a step of fine-tuning"),
        ("--finetune-learning-rate", _positive, recipe.learning_rate, "X", "its first learning rate"),
        ("--probe-passes", _count, Options.probe_passes, "N", "passes of linear-augmented over the train split"),
    ):
        shown = ",".join(f"{part}" for part in default) if isinstance(default, tuple) else default
        parser.add_argument(flag, type=kind, default=default, metavar=metavar, help=f"{text} (default: {shown})")
    return parser


def _protocols(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in PROTOCOLS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no protocol '{unknown[0]}' (known: {', '.join(PROTOCOLS)})")
    return names


def _fractions(text: str) -> tuple[float, ...]:
    return tuple(_number(part, lambda value: 0 < value <= 1, "above 0 and at most 1") for part in text.split(","))


def _positive(text: str) -> float:
    return _number(text, lambda value: 0 < value < float("inf"), "above 0")


def _count(text: str) -> int:
    value = _number(text, lambda value: value >= 1 and value == int(value), "a whole number, at least 1")
    return int(value)


def _number(text: str, right: Callable[[float], bool], wanted: str) -> float:
    """The number in a text.

    Raises:
        argparse.ArgumentTypeError: it is none, or not a right one.
    """
    try:
        value = float(text)
        if right(value):
            return value
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"'{text}' cannot be: give {wanted}")


if __name__ == "__main__":
    sys.exit(main())
