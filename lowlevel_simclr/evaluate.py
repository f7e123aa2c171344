"""python -m lowlevel_simclr.evaluate RUN: what the encoder of a run has learned, by k-NN and a linear probe.

The encoder is frozen: its weights are hashed before and after. No test label decides anything.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow: its start-up notes are not the user's business

import tensorflow as tf

from lowlevel_simclr import checkpoint, compat, data, encoder, protocol, runlog
from lowlevel_simclr.config import Config, ConfigError, FlagParser, from_dict, replace, stored_side

DESCRIPTION = "Evaluates the encoder of a run: cosine k-NN and a linear probe on its frozen representations h."


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates, merges the result into the run's evaluation.json, prints it; returns the exit code."""
    parser = FlagParser(prog="python -m lowlevel_simclr.evaluate", description=DESCRIPTION)
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder that training wrote")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data lie now (default: where training found them)")
    given = parser.parse_strictly(sys.argv[1:] if argv is None else argv)
    try:
        config = from_dict(runlog.read_config(given.run))
        print(evaluate(given.run, replace(config, data_dir=given.data_dir or config.data.data_dir)))
    except (ConfigError, data.DataError, runlog.RunError, protocol.EncoderChanged) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def evaluate(folder: Path, config: Config) -> str:
    """Evaluates the newest checkpoint of a run; returns the table that is shown.

    Raises:
        runlog.RunError: the run has no checkpoint, or one of another model.
        data.DataError: the images are not where they were.
    """
    images = data.load(
        config.data.dataset,
        config.data.data_dir,
        config.train.seed,
        largest_side=stored_side(config),
        memory_limit=config.data.memory_limit,
        before=runlog.read_data(folder),
    )
    scaling = config.model.input_mean, config.model.input_std
    h = {
        "": protocol.represent(trained_encoder(folder, config, images), images, *scaling),
        "_untrained": protocol.represent(new_encoder(config, images), images, *scaling),
        "_pixels": protocol.pixels_of(images),
    }
    results = protocol.evaluate(h, images, config.train.seed, config.data.train_on)
    return protocol.table(runlog.merge_evaluation(folder, results))


def new_encoder(config: Config, images: data.DataSet) -> tf.keras.Model:
    """f as it was before the first step, in float32."""
    compat.set_precision("float32")
    model, channels = config.model, images.train.images.shape[-1]
    return encoder.build(
        model.encoder, model.stem, model.image_size, channels, weights=model.weights, seed=config.train.seed
    )


def trained_encoder(folder: Path, config: Config, images: data.DataSet) -> tf.keras.Model:
    """f with the weights of the newest checkpoint.

    Raises:
        runlog.RunError: there is none, or it is of another model.
    """
    saved = checkpoint.latest(folder / "checkpoints")
    if saved is None:
        raise runlog.RunError(f"{folder} has no checkpoint yet: train it first, for --checkpoint-every steps at least")
    model = new_encoder(config, images)
    try:
        compat.assign_named(compat.named_variables("encoder", model), saved.arrays)
    except ValueError as error:
        raise runlog.RunError(f"the checkpoint in {folder} does not fit its config.json: {error}") from None
    return model


if __name__ == "__main__":
    sys.exit(main())
