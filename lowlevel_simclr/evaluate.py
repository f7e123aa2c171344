"""The program `python -m lowlevel_simclr.evaluate RUN`: measures what an encoder has learned, by the usual protocols.

Everything is computed in float32, whatever the precision of the training.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # set before TensorFlow loads; hides its start-up notes

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import tensorflow as tf

from lowlevel_simclr.config.choices import PROTOCOLS
from lowlevel_simclr.config.command_line import FlagParser
from lowlevel_simclr.config.identity import from_dict, hash_config, replace
from lowlevel_simclr.config.settings import Config, ConfigError
from lowlevel_simclr.data.dataset import DataError
from lowlevel_simclr.data.transform import PixelScaling
from lowlevel_simclr.evaluation import fine_tune
from lowlevel_simclr.evaluation.export import restore_weights
from lowlevel_simclr.evaluation.protocols import DEFAULTS, Options, Subject, evaluate_subject
from lowlevel_simclr.evaluation.represent import EncoderChanged
from lowlevel_simclr.model.encoder import build_encoder
from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.checkpoint import CheckpointError
from lowlevel_simclr.run.results import read_config, read_data
from lowlevel_simclr.runtime.precision import set_precision
from lowlevel_simclr.training.plan import load_images

DESCRIPTION = "Evaluate the encoder of a run by the usual protocols. Results are added to evaluation.json."
EPILOG = """\
protocols:
  knn               k-NN weighted by cosine similarity, k = 20 and 200, on the frozen representation (h)
  linear            logistic regression on frozen h (L-BFGS)
  linear-augmented  linear classifier on frozen h of random crops and flips, --probe-passes passes (AdamW)
  finetune          encoder and linear classifier together, on --label-fraction of every class (SGD)

examples:
  python -m lowlevel_simclr.evaluate runs/shapes
  python -m lowlevel_simclr.evaluate runs/shapes --protocol knn,linear,finetune --label-fraction 0.01,0.1,1 --seeds 3"""


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate a run, add the results to its evaluation.json, and print them. Return the exit code."""
    parser = _build_parser()
    given = parser.parse_strictly(sys.argv[1:] if argv is None else argv)
    steps, size, rate = given.finetune_steps, given.finetune_batch_size, given.finetune_learning_rate
    recipe = fine_tune.FINE_TUNING._replace(steps=steps, batch_size=size, learning_rate=rate)
    options = Options(given.protocol, given.label_fraction, given.seeds, recipe, given.probe_passes)
    try:
        config = from_dict(read_config(given.run))
        print(evaluate(given.run, replace(config, data_dir=given.data_dir or config.data.data_dir), options))
    except (ConfigError, DataError, RunError, CheckpointError, EncoderChanged, fine_tune.Diverged) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def evaluate(folder: Path, config: Config, options: Options = DEFAULTS) -> str:
    """Evaluate the newest checkpoint of a run.

    Args:
        folder: the run folder.
        config: the configuration of the run.
        options: the protocols and their settings.

    Returns:
        The table of results, as it is shown.

    Raises:
        ConfigError, DataError, RunError, CheckpointError, EncoderChanged, Diverged: see these classes.
    """
    if config.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    return evaluate_subject(_make_subject(folder, config), options)


def _make_subject(folder: Path, config: Config) -> Subject:
    """Return the encoder of the newest checkpoint, and the images and settings of the run."""
    images, model = load_images(config, read_data(folder)), config.model

    def build_untrained() -> tf.keras.Model:
        set_precision("float32")
        channels = images.train.images.shape[-1]
        return build_encoder(
            model.encoder, model.stem, model.image_size, channels, weights=model.weights, seed=config.train.seed
        )

    encoder = build_untrained()
    return Subject(
        folder=folder,
        step=restore_weights(folder, encoder=encoder),
        encoder=encoder,
        build_untrained=build_untrained,
        images=images,
        seed=config.train.seed,
        train_on=config.data.train_on,
        scaling=PixelScaling(model.input_mean, model.input_std),
        recipe=config.views,
        compile_views=config.train.xla != "off",
        config_hash=hash_config(config),
    )


def _build_parser() -> FlagParser:
    """Return the parser of the program's flags."""
    usage = "%(prog)s RUN [flags]"
    parser = FlagParser(prog="python -m lowlevel_simclr.evaluate", description=DESCRIPTION, epilog=EPILOG, usage=usage)
    recipe = fine_tune.FINE_TUNING
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder that training wrote")
    parser.add_argument("--data-dir", metavar="DIR", help="the folder of the data set now (default: that of training)")
    for flag, kind, default, metavar, text in (
        ("--protocol", _read_protocols, Options.protocols, "A,B", "protocols to run"),
        ("--label-fraction", _read_fractions, Options.fractions, "X,Y", "shares of the labels that fine-tuning sees"),
        ("--seeds", _read_count, Options.seeds, "K", "number of seeds, which draw labels, order and views"),
        ("--finetune-steps", _read_count, recipe.steps, "N", "fine-tuning steps, for every share of the labels"),
        ("--finetune-batch-size", _read_count, recipe.batch_size, "N", "images per fine-tuning step"),
        ("--finetune-learning-rate", _read_positive, recipe.learning_rate, "X", "initial learning rate of fine-tuning"),
        ("--probe-passes", _read_count, Options.probe_passes, "N", "passes of linear-augmented over the train split"),
    ):
        shown = ",".join(f"{part}" for part in default) if isinstance(default, tuple) else default
        parser.add_argument(flag, type=kind, default=default, metavar=metavar, help=f"{text} (default: {shown})")
    return parser


def _read_protocols(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in PROTOCOLS]
    if unknown:
        raise argparse.ArgumentTypeError(f"There is no protocol '{unknown[0]}'. Known names: {', '.join(PROTOCOLS)}.")
    return names


def _read_fractions(text: str) -> tuple[float, ...]:
    return tuple(
        _read_number(part, lambda value: 0 < value <= 1, "a number above 0 and at most 1") for part in text.split(",")
    )


def _read_positive(text: str) -> float:
    return _read_number(text, lambda value: 0 < value < float("inf"), "a number above 0")


def _read_count(text: str) -> int:
    value = _read_number(text, lambda value: value >= 1 and value == int(value), "a whole number of at least 1")
    return int(value)


def _read_number(text: str, right: Callable[[float], bool], wanted: str) -> float:
    """Return the number in a text.

    Raises:
        argparse.ArgumentTypeError: if the text is not a number, or `right` is False for it.
    """
    try:
        value = float(text)
        if right(value):
            return value
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"The value is '{text}'. It must be {wanted}.")


if __name__ == "__main__":
    sys.exit(main())
