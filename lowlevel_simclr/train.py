"""python -m lowlevel_simclr.train: pretrains an encoder without labels, and writes one run folder.

The same command again resumes the run where its last checkpoint left it, to the bit. Nothing here computes: this file
reads the configuration, puts the parts together and keeps the loop.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow: its start-up notes are not the user's business

import numpy as np
import tensorflow as tf
from tqdm import tqdm

import lowlevel_simclr
from lowlevel_simclr import (
    assembly,
    checkpoint,
    compat,
    data,
    distribute,
    export,
    micro_batch,
    optimizer,
    plots,
    protocol,
    runlog,
    step,
    trace,
)
from lowlevel_simclr.background import Background
from lowlevel_simclr.command_line import RunOptions, parse
from lowlevel_simclr.config import (
    LOSS_FACTORS,
    Config,
    ConfigError,
    colourless,
    config_hash,
    difference,
    from_dict,
    identity,
    replace,
    stored_side,
    to_dict,
)

DESCRIPTION = "Pretrains an encoder with SimCLR: no labels are used until the evaluation at the end."
RGB = 3  # channels that have colours
PREVIEWED = 8  # images in views.png
QUERIES = 10  # rows of neighbours.png, one a class where there are ten
MAPPED = 1000  # points of embedding.png
SHAPES_NEXT = """\
What to try next:
  real images      python -m lowlevel_simclr.train --dataset cifar10 --data-dir DIR
  another seed     python -m lowlevel_simclr.train --seed 1
  evaluate again   python -m lowlevel_simclr.evaluate {folder}
  your settings    python -m lowlevel_simclr.train --help"""
OTHER_NEXT = """\
What to try next:
  train longer     the same command with --epochs {epochs} and another --out
  evaluate again   python -m lowlevel_simclr.evaluate {folder}"""


class Stopped(Exception):
    """SIGTERM or Ctrl-C asked the run to end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, evaluates and draws; returns the exit code."""
    config, options = parse(argv, DESCRIPTION)
    try:
        train(config, options)
    except Stopped as stopped:
        print(stopped)
    except distribute.DistributionError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except (ConfigError, data.DataError, runlog.RunError, checkpoint.CheckpointError, step.NonFiniteLoss) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def train(config: Config, options: RunOptions) -> dict[str, Any]:
    """One session of a run, from where its last checkpoint stands to the end.

    Returns:
        What evaluation.json holds.

    Raises:
        Stopped: a signal ended it early; the state is saved.
        ConfigError, data.DataError, runlog.RunError, checkpoint.CheckpointError, step.NonFiniteLoss,
            distribute.DistributionError: see there.
    """
    team = distribute.gather_team(config.train.devices, config.train.batch_norm, config.train.ghost_batch)
    config = resolved(config, team)
    config = micro_batch.settled(config, team, None if options.fresh else options.out)
    assembly.refuse_missing_library(config.train.ops)
    images = read_images(config, options, team.workers.chief)
    if images.train.images.shape[-1] != RGB:
        config = colourless(config)
    with stop_requests() as asked, contextlib.ExitStack() as stack:
        if config.train.deterministic:
            tf.config.experimental.enable_op_determinism()
        if options.preview:
            config = micro_batch.untried(config)
            return preview(config, assembly.make_plan(config, images, team), images, options.out)
        config = micro_batch.found(config, images, team)
        plan = assembly.make_plan(config, images, team)
        distribute.agree(team.workers, {**identity(config), **versions()})
        # Only the chief writes the run; what another worker writes on its way is thrown away.
        out = options.out if team.workers.chief else Path(stack.enter_context(tempfile.TemporaryDirectory()), "run")
        with runlog.open_run(
            out, to_dict(config), lambda found: difference(from_dict(found), config), fresh=options.fresh
        ) as run:
            run.write_environment(plan.as_dict())
            run.write_data(data.record(images))
            return Session(config, plan, images, run, team, options.profile).finish(asked)


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], str | None]]:
    """Within it SIGTERM and Ctrl-C are noted, not obeyed at once; a second Ctrl-C is. Gives the name of the signal."""
    received: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def read_images(config: Config, options: RunOptions, chief: bool) -> data.DataSet:
    """The data set, read after everything that can be refused at once has been.

    Raises:
        Stopped: Ctrl-C; nothing has been written yet.
        data.DataError, runlog.RunError: see there.
    """
    writes = chief and not options.preview
    if writes:
        runlog.refuse_early(options.out, functools.partial(difference_either_way, config), fresh=options.fresh)
    before = runlog.read_data(options.out) if writes and not options.fresh else None
    try:
        return data.load(
            config.data.dataset,
            config.data.data_dir,
            config.train.seed,
            largest_side=stored_side(config),
            memory_limit=config.data.memory_limit,
            at_least=config.train.batch_size,
            before=before,
        )
    except KeyboardInterrupt:
        raise Stopped("stopped while the images were read: there is nothing to save") from None


def difference_either_way(config: Config, found: dict[str, Any]) -> list[str]:
    """What keeps a run from being resumed, whether the images, not read yet, turn out to have colours or not."""
    before = from_dict(found)
    return min((difference(before, after) for after in (config, colourless(config))), key=len)


def resolved(config: Config, team: distribute.Team) -> Config:
    """The configuration with what this machine chose: another device, or another number of them, is another run."""
    devices = config.train.devices if config.train.devices.startswith("cpu:") else str(len(team.local))
    return replace(config, precision=assembly.resolved_precision(config), devices=devices)


def versions() -> dict[str, str]:
    """What must be the same on every worker, beside the configuration."""
    return {
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "Keras": compat.keras_version(),
        "lowlevel_simclr": lowlevel_simclr.__version__,
    }


def preview(config: Config, plan: assembly.Plan, images: data.DataSet, out: Path) -> dict[str, Any]:
    """Draws views.png into the run folder's plots/ and stops."""
    draw_views(config, plan, images, out / "plots" / "views.png")
    print(f"views of {PREVIEWED} images: {out / 'plots' / 'views.png'}")
    return {}


# A session: from the last checkpoint to the end


class Session:
    """The parts of a run while this process trains it; what to do is in `finish`, in order."""

    def __init__(
        self,
        config: Config,
        plan: assembly.Plan,
        images: data.DataSet,
        run: runlog.Run,
        team: distribute.Team,
        profile: bool = False,
    ) -> None:
        """Builds f and g, restores the last checkpoint, and says what is trained on what."""
        self.config, self.plan, self.images, self.run = config, plan, images, run
        self.team, self.profile = team, profile
        self.learners = []
        for replica in team.local:
            with tf.device(replica.device or None):
                self.learners.append(assembly.new_learner(config, plan, images.train.images.shape[-1]))
        self.learner = self.learners[0]  # the state of all
        run.write_variables(optimizer.describe(self.learner.optimizer))
        self.sample = protocol.knn_sample(images, config.train.seed)
        self.first_step = self._restore()
        self.latest_knn = math.nan
        describe(self)

    def finish(self, asked: Callable[[], str | None]) -> dict[str, Any]:
        """Trains to the last step, evaluates, draws and reports; returns what evaluation.json holds.

        With several workers the chief alone draws and evaluates; the others wait for it, because it would take their
        end for a failure.
        """
        if not self.team.workers.chief:
            self.train(asked)
            distribute.anyone(self.team.workers, False)
            return {}
        self.train(asked)
        in_float32 = dataclasses.replace(self.plan, precision="float32")
        f = assembly.new_learner(self.config, in_float32, self.images.train.images.shape[-1]).encoder
        baselines = self._sample_baselines(f)
        evaluation, h, h_untrained = self.evaluate(f)
        self.draw(h, h_untrained, baselines)
        self.run.write_peak_memory()
        report(self, evaluation)
        distribute.anyone(self.team.workers, False)
        return evaluation

    # Training

    def train(self, asked: Callable[[], str | None]) -> None:
        """The loop: a few steps in the graph, then metrics, k-NN and checkpoints, each when it is due."""
        if self.first_step >= self.plan.steps:
            return
        fetch = assembly.fetcher(self.config, self.plan, self.images)
        steps = distribute.everywhere(
            self.team,
            [
                assembly.steps_function(self.config, self.plan, *both, fetch)
                for both in zip(self.learners, self.team.local)
            ],
        )
        batches = self._batches()
        views = self.run.plots / "views.png"
        bar = tqdm(total=self.plan.steps, initial=self.first_step, unit="step", dynamic_ncols=True)
        with bar, Background() as beside:
            done, calls, before = self.first_step, 0, time.perf_counter()
            while done < self.plan.steps:
                count = self._next_stop(done) - done
                with self._traced(calls == 1, count):  # the second call: the first one traces and compiles
                    metrics = self._call(steps, batches, count)
                calls += 1
                seconds = time.perf_counter() - before
                beside.do(functools.partial(self._record, bar, done, metrics, seconds, self._look(done + count)))
                if calls == 1:  # now, for until the first step a user waits
                    beside.do(functools.partial(draw_views, self.config, self.plan, self.images, views))
                done += count
                stops = distribute.anyone(self.team.workers, bool(asked()))
                if self._due(done, self.config.train.checkpoint_every) or stops:
                    self._save_beside(beside, done)
                if stops:
                    beside.wait()
                    distribute.anyone(self.team.workers, False)  # nobody leaves before the chief has saved
                    raise Stopped(
                        f"{asked() or 'another worker was asked to stop'}: saved at step {done} of {self.plan.steps}; "
                        "the same command goes on from there"
                    )
                before = time.perf_counter()

    def _batches(self) -> list[Iterator[step.Batch]]:
        """The batches of each local replica, its own images alone."""
        images, choice = assembly.training_images(self.config, self.images), self.config.train
        shares = [
            distribute.own_rows(replica.rank, replica.count, choice.batch_size, self.plan.micro_batches)
            if replica.count > 1
            else None
            for replica in self.team.local
        ]
        wanted = (choice.batch_size, choice.seed, self.first_step, self.plan.steps)
        with_images = self.plan.data_on == "host"
        return [iter(data.batches(images, *wanted, own, with_images)) for own in shares]

    @contextlib.contextmanager
    def _traced(self, now: bool, count: int) -> Iterator[None]:
        """With --profile and `now`: the block's trace goes to TensorBoard's folder and its table to the terminal."""
        if not (self.profile and now):
            yield
            return
        found: list[trace.Traced] = []
        with trace.recording(self.run.tensorboard, found):
            yield
        tqdm.write(trace.table(found[0], count, self.learner.encoder.name, self.learner.projection.name))
        tqdm.write(f"the trace: tensorboard --logdir {self.run.tensorboard}")

    def _call(
        self, steps: Callable[..., step.Metrics], batches: list[Iterator[step.Batch]], count: int
    ) -> step.Metrics:
        """`count` steps in one host call -> their metrics, (count,) each, which may still be in the making."""
        try:
            return steps(batches, tf.constant(count, tf.int32))
        except tf.errors.OpError as error:
            raise data.told_in(error) or error from None

    def _record(self, bar: tqdm, done: int, metrics: step.Metrics, seconds: float, knn: float | None) -> None:
        """Rows of the steps after `done`, beside training: read from the device, looked at, written, shown.

        A device that works asynchronously is waited for here and not in the loop, and `seconds` of a call is then the
        time to give it, which the waiting line makes that of a call once the device is behind.
        """
        metrics = step.Metrics(*(value.numpy() for value in metrics))
        step.refuse_non_finite(metrics, done + 1)
        rate = round(self.config.train.batch_size * len(metrics.loss) / seconds, 2)
        rows: list[runlog.Row] = [
            {"step": done + 1 + place, **values, "pairs_per_second": rate}
            for place, values in enumerate(dict(zip(metrics._fields, map(float, row))) for row in zip(*metrics))
        ]
        if knn is not None:
            rows[-1]["knn"] = self.latest_knn = knn
        self.run.append(rows)
        self._show(bar, rows)

    def _due(self, done: int, every: int) -> bool:
        return every > 0 and (done % every == 0 or done == self.plan.steps)

    def _knn_interval(self) -> int:
        return self.config.train.knn_every * self.plan.steps_per_epoch if self.sample else 0

    def _next_stop(self, done: int) -> int:
        """Where the next host call ends: at the latest where a checkpoint or a look at k-NN is due.

        The first call makes one step, so that a user sees it as soon as there is one.
        """
        at_once = self.config.train.steps_per_call if done > self.first_step else 1
        stops = [done + at_once, self.plan.steps]
        for every in (self.config.train.checkpoint_every, self._knn_interval()):
            if every:
                stops.append(done - done % every + every)
        return min(stops)

    def _look(self, done: int) -> float | None:
        """k-NN on the held-out sample, when it is due."""
        if self.team.workers.chief and self.sample and self._due(done, self._knn_interval()):
            return protocol.sample_knn(self.learner.encoder, self.sample, *self._scaling())
        return None

    def _show(self, bar: tqdm, rows: list[runlog.Row]) -> None:
        """The bar's numbers: those of the last step."""
        last, chance = rows[-1], chance_loss(self.config)
        knn = "" if math.isnan(self.latest_knn) else f" k-NN {self.latest_knn:.3f}"
        bar.set_postfix_str(
            f"loss {last['loss']:.3f} (chance {chance:.3f}) top-1 {last['top1']:.3f}{knn} "
            f"{last['pairs_per_second']:.0f} pairs/s",
            refresh=False,
        )
        bar.update(len(rows))

    # State

    def _save_beside(self, beside: Background, done: int) -> None:
        """The checkpoint of this moment, by the chief, while training goes on."""
        if self.team.workers.chief:
            beside.do(functools.partial(self._save, done, self.learner.snapshot()))

    def _save(self, done: int, state: dict[str, tf.Tensor]) -> None:
        """The checkpoint of a step, beside training."""
        checkpoint.save(
            self.run.checkpoints,
            done,
            {name: tensor.numpy() for name, tensor in state.items()},
            {"config_hash": config_hash(self.config), "seed": self.config.train.seed},
            self.config.train.keep_checkpoints,
        )

    def _restore(self) -> int:
        """The step to go on from; metrics of later steps are cut, because they are about to be written again.

        Raises:
            runlog.RunError: the checkpoint is of another model.
        """
        saved = checkpoint.latest(self.run.checkpoints)
        try:
            if saved:
                self.learner.restore(saved.arrays)
        except ValueError as error:
            raise runlog.RunError(
                f"the checkpoint in {self.run.folder} does not fit its config.json: {error}; where another version of "
                "this package has written it, go on with that one, or give --fresh"
            ) from None
        if self.team.count > 1:
            distribute.check_ranks(self.team.workers, self.team.local)
            arrays = distribute.spread(self.team.workers, self.learner.arrays())
            for learner in self.learners:
                learner.restore(arrays)
        done = int(self.learner.step.numpy())
        self.run.cut_metrics(done)
        return done

    # Evaluation

    def _scaling(self) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
        return self.config.model.input_mean, self.config.model.input_std

    def evaluate(self, f: tf.keras.Model) -> tuple[dict[str, Any], protocol.Represented, protocol.Represented]:
        """evaluation.json, with h of the trained and of the untrained encoder; writes encoder.keras.

        `f` is the untrained encoder in float32, in which everything is evaluated; it is trained afterwards.
        """
        tqdm.write("evaluating ...")
        config, shape = self.config, self.images.train.images.shape
        h_untrained = protocol.represent(f, self.images, *self._scaling())
        f.set_weights(self.learner.encoder.get_weights())
        h = protocol.represent(f, self.images, *self._scaling())
        export.save(self.run.folder, export.with_preprocessing(f, *self._scaling()))
        results = protocol.evaluate(
            {"": h, "_untrained": h_untrained, "_pixels": protocol.pixels_of(self.images)},
            self.images,
            config.train.seed,
            config.data.train_on,
        )
        results["transform"] = protocol.transform(shape, config.model.image_size, *self._scaling())
        step_done = int(self.learner.step.numpy())
        return runlog.merge_evaluation(self.run.folder, step_done, results), h, h_untrained

    def _sample_baselines(self, untrained: tf.keras.Model) -> dict[str, float]:
        """k-NN of pixels and of the untrained encoder on the held-out sample, for the curves."""
        if self.sample is None:
            return {}
        return {
            "pixels": protocol.sample_knn(None, self.sample),
            "untrained encoder": protocol.sample_knn(untrained, self.sample, *self._scaling()),
        }

    def draw(self, h: protocol.Represented, h_untrained: protocol.Represented, baselines: dict[str, float]) -> None:
        """learning.png, embedding.png and neighbours.png."""
        folder, seed = self.run.plots, self.config.train.seed
        rows = runlog.read_metrics(self.run.folder)
        plots.learning(folder / "learning.png", rows, chance_loss(self.config), baselines)
        test = self.images.test
        some = slice(0, MAPPED)
        plots.embedding(
            folder / "embedding.png", h_untrained.test[some], h.test[some], test.labels[some], self.images.classes, seed
        )
        found = protocol.nearest(h, QUERIES, 5, test.labels)
        plots.neighbours(
            folder / "neighbours.png",
            test.images[found.queries],
            self.images.train.images[found.neighbours],
            test.labels[found.queries],
            self.images.train.labels[found.neighbours],
            self.images.classes,
        )


def chance_loss(config: Config) -> float:
    """The loss of an encoder that says the same of every view: log(2N - 1) in the paper's convention."""
    return LOSS_FACTORS[config.loss.loss_reduction] * math.log(2 * config.train.batch_size - 1)


def draw_views(config: Config, plan: assembly.Plan, images: data.DataSet, path: Path) -> None:
    """views.png: the first images of the order of epoch 0, each with its two views."""
    index = np.arange(PREVIEWED)
    originals = assembly.training_images(config, images)[index]
    plain = dataclasses.replace(config, model=dataclasses.replace(config.model, input_mean=None, input_std=None))
    views = assembly.view_maker(plain, dataclasses.replace(plan, precision="float32"))
    made = views(tf.constant(0, tf.int64), tf.constant(index, tf.int64), tf.constant(originals)).numpy()
    plots.views(path, originals, made[:PREVIEWED], made[PREVIEWED:])


# What is said


def describe(session: Session) -> None:
    """f, g, the loss and the device, before the first step."""
    config, plan, learner, workers = session.config, session.plan, session.learner, session.team.workers
    if not workers.chief:
        print(f"worker   {workers.rank} of {workers.count}: worker 0 keeps the run folder")
        return
    state = f"resumes at step {session.first_step}" if session.first_step else "starts"
    images = len(assembly.training_images(config, session.images))
    f, g = learner.encoder, learner.projection
    widths, norm = "-".join(map(str, config.model.projection_widths)), config.model.projection_batch_norm
    norm = "" if norm == "none" else f", BatchNorm ({norm})"
    print(f"run      {session.run.folder} {state} of {plan.steps} steps of {config.train.batch_size} images")
    print(f"data     {config.data.dataset}: {images} images, {len(session.images.classes)} classes (labels unused)")
    describe_reading(session)
    print(f"f        {config.model.encoder}, {config.model.stem} stem: {compat.trainable_count(f):,} parameters")
    print(f"g        {widths}{norm}: {compat.trainable_count(g):,} parameters")
    factor = LOSS_FACTORS[config.loss.loss_reduction]
    print(f"loss     NT-Xent, tau {config.loss.temperature:g}, {factor:g} x the mean over the 2N views")
    compiled = "the step" if plan.jit_compile else "the views" if plan.jit_compile_views else "nothing"
    if plan.replicas > 1 or plan.micro_batches > 1:
        shares = f"{plan.replicas} replicas in {plan.workers} workers, {plan.micro_batches} micro-batches a step"
        print(f"replicas {shares}, BatchNorm {config.train.batch_norm}")
    print(f"device   {plan.precision}, XLA for {compiled}, {plan.implementation.name} ops, TensorFlow {tf.__version__}")


def describe_reading(session: Session) -> None:
    """What became of the files, where there is something to say."""
    record, images = data.record(session.images), session.images
    height, width, channels = record["shape"]
    streamed = ", decoded as they are needed" if data.is_streamed(images) else ""
    resident = ", on the device" if session.plan.data_on == "device" else ""
    print(f"         stored as {height}x{width} pixels, {channels} channels{streamed}{resident}")
    if record["skipped"]:
        first = record["skipped"][0]
        print(f"         {len(record['skipped'])} left out, see data.json; first {first['path']} ({first['reason']})")
    if record["counts"].get("outside_splits"):
        print(f"         {record['counts']['outside_splits']} images lie outside train/ and test/ and are not used")
    if session.config.data.train_on == "all":
        print("         trained on train and test images together, which inflates the results")


def report(session: Session, evaluation: dict[str, Any]) -> None:
    """The table of what was learned, and what to try next."""
    print(protocol.table(evaluation))
    print(f"pictures: {session.run.plots}")
    text = SHAPES_NEXT if session.config.data.dataset == "shapes" else OTHER_NEXT
    print(text.format(folder=session.run.folder, epochs=5 * session.config.train.epochs))


if __name__ == "__main__":
    sys.exit(main())
