"""Trains a run in one session: until the training is complete, or until a signal stops the program.

If a run was stopped, a new session continues it.

`lowlevel_simclr.train` and the command `train` both call `run_session`. A run may have several workers (processes),
for example on several hosts, and several replicas (devices that train on their part of each batch).
"""

from __future__ import annotations

import contextlib
import functools
import platform
import tempfile
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

import lowlevel_simclr
from lowlevel_simclr.api.budget_settings import choose_for_budget, keep_earlier_choice
from lowlevel_simclr.config.command_line import RunOptions
from lowlevel_simclr.config.fields import format_value, list_fields
from lowlevel_simclr.config.identity import get_identity, list_differences, to_dict
from lowlevel_simclr.config.names import format_count, show_name
from lowlevel_simclr.config.settings import Config, ConfigError
from lowlevel_simclr.config.validation import restore_config
from lowlevel_simclr.config.view_sizes import choose_evaluation_size
from lowlevel_simclr.data import catalog
from lowlevel_simclr.data.dataset import DataSet
from lowlevel_simclr.data.fingerprint import describe_content
from lowlevel_simclr.evaluation.starting_encoder import list_other_settings
from lowlevel_simclr.model.encoder import refuse_choice
from lowlevel_simclr.run import checkpoint
from lowlevel_simclr.run.folder import open_run, refuse_unusable
from lowlevel_simclr.run.results import read_data
from lowlevel_simclr.runtime.keras import find_keras_version
from lowlevel_simclr.runtime.process_state import keep_process_state
from lowlevel_simclr.runtime.signals import tell_stage
from lowlevel_simclr.training import pictures
from lowlevel_simclr.training.cluster import find_cluster
from lowlevel_simclr.training.learner import Learner
from lowlevel_simclr.training.plan import (
    RGB,
    Plan,
    list_early_differences,
    list_view_sizes,
    load_images,
    read_earlier,
    refuse_early,
    resolve,
)
from lowlevel_simclr.training.session import Session, build_learners
from lowlevel_simclr.training.trial import fits_memory
from lowlevel_simclr.training.workers import Team, agree_on_statement, gather_team, pass_refusal_on


class Finished(NamedTuple):
    """The result of a session: the run folder, and the images on which the encoder was trained."""

    folder: Path
    images: DataSet


def run_session(config: Config, options: RunOptions, images: DataSet | None = None) -> Finished:
    """Train a run from its last checkpoint (or from the start) to the end, and evaluate the encoder.

    At its end, the function restores Keras' dtype policy and TensorFlow's op determinism to their values before the
    call.

    Args:
        config: the settings.
        options: the run folder, and the other options of this call.
        images: the images to train on. None: the data set that the configuration names.

    Raises:
        Stopped: if a signal ended the session early. The state is saved before that.
        ConfigError: if a setting is impossible on this machine or with these images.
        DataError: if the images cannot be read, or there are too few.
        RunError: if the run folder holds another run or other files, or cannot be written.
        CheckpointError: if a checkpoint cannot be read or written.
        NonFiniteLoss: if the loss became NaN or infinite.
        NonFiniteState: if a weight became NaN or infinite.
        NonFiniteRepresentation: if h became NaN or infinite.
        DistributionError: if the list of workers is wrong, or if a replica or a worker is missing.
    """
    with keep_process_state():
        return _run_session(config, options, images)


def _run_session(config: Config, options: RunOptions, given: DataSet | None) -> Finished:
    train = config.train
    cluster = find_cluster(options.hosts, options.rank)
    team = gather_team(train.devices, train.batch_norm, train.ghost_batch, train.worker_timeout, cluster, train.engine)
    if train.deterministic:
        tf.config.experimental.enable_op_determinism()
    with pass_refusal_on(team.workers):
        ready = _prepare(config, options, team, given)
    if options.preview:
        _preview(ready.plan, ready.images, options.out)
        return Finished(options.out, ready.images)
    _agree(ready.config, team, ready.images)
    with contextlib.ExitStack() as stack:
        # Only the chief (worker 0) writes the run folder. Every other worker writes into a temporary folder, which is
        # deleted at the end.
        out = options.out if team.workers.chief else Path(stack.enter_context(tempfile.TemporaryDirectory()), "run")
        with open_run(
            out,
            to_dict(ready.config),
            lambda found: list_differences(restore_config(found), ready.config),
            fresh=options.fresh,
        ) as run:
            run.write_environment(ready.plan.describe())
            run.write_data(catalog.describe_dataset(ready.images))
            parts = ready.plan, ready.images, run, team, ready.learners
            Session(*parts, profile=options.profile, started=options.started).finish()
            return Finished(run.folder if team.workers.chief else options.out, ready.images)


class _Ready(NamedTuple):
    """A run that is ready to train. Nothing is written into its folder yet.

    A learner holds the networks and the optimizer of a replica. For a preview, `learners` is empty.
    """

    config: Config
    plan: Plan
    images: DataSet
    learners: list[Learner]


def _prepare(config: Config, options: RunOptions, team: Team, given: DataSet | None) -> _Ready:
    """Check the settings, read the images, and build the networks. The run folder does not change."""
    config = keep_earlier_choice(config, options)
    earlier = read_earlier(config, options.out, options.fresh)
    refuse_early(config, team, earlier)
    resumes = not options.fresh and team.workers.chief and checkpoint.has_any(options.out / "checkpoints")
    model = config.model
    if not resumes:
        _refuse_other_encoder(config)
    least = min(choose_evaluation_size(model), *(size.side for size in list_view_sizes(config)))
    refuse_choice(model.encoder, model.stem, least, RGB, "random" if resumes else model.weights)
    images = _read_images(config, options, team, earlier, given)
    config = choose_for_budget(config, options, team, images)
    tell_stage("building the encoder")
    config, plan = resolve(config, team, images, earlier, None if options.preview else fits_memory)
    learners = [] if options.preview else build_learners(plan, images.train.images.shape[-1], team, resumes)
    return _Ready(config, plan, images, learners)


def _refuse_other_encoder(config: Config) -> None:
    """If the first weights come from another run, check that both runs have the same encoder and scaling of pixels.

    Raises:
        ConfigError: if these differ. The message names the flags to use.
    """
    others = list_other_settings(config.model.weights, to_dict(config)["model"])
    if others:
        flags = {list_fields()[name].flag: value for name, value in others.items()}
        wanted = ", ".join(
            f"no {flag}" if value is None else f"{flag} {format_value(value)}" for flag, value in flags.items()
        )
        raise ConfigError(
            f"The weights of the run {config.model.weights} need another encoder or another scaling. Use {wanted}, "
            "as that run has, or start from its settings with --config."
        )


def _read_images(
    config: Config, options: RunOptions, team: Team, earlier: Config | None, given: DataSet | None
) -> DataSet:
    """Return the data set. Before reading it, check that the run folder can be used."""
    writes = team.workers.chief and not options.preview
    if writes:
        difference = functools.partial(list_early_differences, config, team, earlier)
        refuse_unusable(options.out, difference, fresh=options.fresh)
    if given is not None:
        return given
    before = read_data(options.out) if writes and not options.fresh else None
    tell_stage("reading the images")
    return load_images(config, before, at_least=config.train.batch_size, own=options.out)


def _agree(config: Config, team: Team, images: DataSet) -> None:
    """Check that every worker has the same settings, versions and images.

    Raises:
        DistributionError: if a worker differs. The message names the differences.
    """
    if team.workers.count > 1:  # hashing the images takes time: 0.2 s for CIFAR-10
        statement = {**get_identity(config), **_list_versions(), **describe_content(images)}
        agree_on_statement(team.workers, statement)


def _list_versions() -> dict[str, str]:
    """Return the versions that must be the same on every worker."""
    return {
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "Keras": find_keras_version(),
        "lowlevel_simclr": lowlevel_simclr.__version__,
    }


def _preview(plan: Plan, images: DataSet, out: Path) -> None:
    """Draw views.png into the run folder's plots/, and print its path."""
    path = out / "plots" / "views.png"
    count = pictures.draw_views(plan, images, path)
    print(f"Drew the views of {format_count(count, 'image')}: {show_name(path)}")
