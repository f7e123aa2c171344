"""The program `python -m lowlevel_simclr.train`: pretrains an encoder without labels, and writes one run folder.

The same command resumes the run from its last checkpoint, bit for bit.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # set before TensorFlow loads; hides its start-up notes

import contextlib
import functools
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

import lowlevel_simclr
from lowlevel_simclr.config.command_line import RunOptions, parse_run
from lowlevel_simclr.config.identity import from_dict, get_identity, list_differences, to_dict
from lowlevel_simclr.config.settings import Config, ConfigError
from lowlevel_simclr.data import catalog
from lowlevel_simclr.data.dataset import DataError, DataSet
from lowlevel_simclr.run.atomic import RunError
from lowlevel_simclr.run.checkpoint import CheckpointError
from lowlevel_simclr.run.folder import open_run, refuse_unusable
from lowlevel_simclr.run.results import read_data
from lowlevel_simclr.runtime.keras import find_keras_version
from lowlevel_simclr.training import pictures
from lowlevel_simclr.training.plan import Plan, list_early_differences, load_images, read_earlier, refuse_early, resolve
from lowlevel_simclr.training.replicas import DistributionError
from lowlevel_simclr.training.saving import NonFiniteState
from lowlevel_simclr.training.session import Session
from lowlevel_simclr.training.signals import Stopped, note_stop_requests
from lowlevel_simclr.training.step import NonFiniteLoss
from lowlevel_simclr.training.trial import fits_memory
from lowlevel_simclr.training.workers import Team, agree_on_statement, gather_team

DESCRIPTION = "Pretrain an encoder with SimCLR. Labels are used only for the evaluation at the end."


def main(argv: Sequence[str] | None = None) -> int:
    """Train, evaluate and draw the pictures. Return the exit code."""
    config, options = parse_run(argv, DESCRIPTION)
    try:
        train(config, options)
    except Stopped as stopped:
        print(stopped)
    except DistributionError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except (ConfigError, DataError, RunError, CheckpointError, NonFiniteLoss, NonFiniteState) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def train(config: Config, options: RunOptions) -> dict[str, Any]:
    """Run one session of training, from the last checkpoint to the end.

    Args:
        config: the configuration as the user gave it.
        options: the options of this call.

    Returns:
        The content of evaluation.json. For a preview, {}.

    Raises:
        Stopped: if a signal ended the session early. Trained steps are saved.
        DistributionError: if the devices or workers cannot train together.
        ConfigError, DataError, RunError, CheckpointError, NonFiniteLoss, NonFiniteState: see these classes.
    """
    team = gather_team(config.train.devices, config.train.batch_norm, config.train.ghost_batch)
    earlier = read_earlier(config, options.out, options.fresh)
    refuse_early(config, team, earlier)
    images = _read_images(config, options, team, earlier)
    with note_stop_requests() as asked, contextlib.ExitStack() as stack:
        if config.train.deterministic:
            tf.config.experimental.enable_op_determinism()
        if options.preview:
            return _preview(resolve(config, team, images, earlier)[1], images, options.out)
        config, plan = resolve(config, team, images, earlier, fits_memory)
        agree_on_statement(team.workers, {**get_identity(config), **_list_versions()})
        # Only the chief writes the run. Other workers write into a temporary folder, which is deleted.
        out = options.out if team.workers.chief else Path(stack.enter_context(tempfile.TemporaryDirectory()), "run")
        with open_run(
            out, to_dict(config), lambda found: list_differences(from_dict(found), config), fresh=options.fresh
        ) as run:
            run.write_environment(plan.describe())
            run.write_data(catalog.describe_dataset(images))
            return Session(plan, images, run, team, options.profile).finish(asked)


def _read_images(config: Config, options: RunOptions, team: Team, earlier: Config | None) -> DataSet:
    """Read the data set, after checking everything that can be refused at once."""
    writes = team.workers.chief and not options.preview
    if writes:
        difference = functools.partial(list_early_differences, config, team, earlier)
        refuse_unusable(options.out, difference, fresh=options.fresh)
    before = read_data(options.out) if writes and not options.fresh else None
    try:
        return load_images(config, before, at_least=config.train.batch_size)
    except KeyboardInterrupt:
        raise Stopped("Stopped while the images were read. There is nothing to save.") from None


def _list_versions() -> dict[str, str]:
    """Return the versions that must be the same on every worker, like the configuration."""
    return {
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "Keras": find_keras_version(),
        "lowlevel_simclr": lowlevel_simclr.__version__,
    }


def _preview(plan: Plan, images: DataSet, out: Path) -> dict[str, Any]:
    """Draw views.png into the run folder's plots/."""
    path = out / "plots" / "views.png"
    pictures.draw_views(plan, images, path)
    print(f"Drew the views of {pictures.PREVIEWED} images: {path}")
    return {}


if __name__ == "__main__":
    sys.exit(main())
