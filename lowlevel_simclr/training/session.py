"""One session of a run (one start of the training program): it trains from the last checkpoint to the end."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.data.batches import Gather, make_batches, recover_data_error
from lowlevel_simclr.data.catalog import select_training_images
from lowlevel_simclr.data.dataset import DataSet
from lowlevel_simclr.evaluation.knn import draw_knn_sample
from lowlevel_simclr.optim.optimizers import describe_variables
from lowlevel_simclr.run.folder import Run
from lowlevel_simclr.run.results import Row
from lowlevel_simclr.runtime.progress_bar import open_bar
from lowlevel_simclr.runtime.signals import Stopped, is_watched, name_signal, note_stop_requests, tell_stage
from lowlevel_simclr.training import profiler
from lowlevel_simclr.training.background import BackgroundWorker
from lowlevel_simclr.training.budget_course import plan_course
from lowlevel_simclr.training.calendar import make_calendar
from lowlevel_simclr.training.checkup import Checkup, Watch
from lowlevel_simclr.training.conclusion import conclude
from lowlevel_simclr.training.course import Segment
from lowlevel_simclr.training.learner import Learner, build_learner
from lowlevel_simclr.training.loop import make_fetch, make_step, make_steps, take_side
from lowlevel_simclr.training.messages import print_before_steps, print_start
from lowlevel_simclr.training.pace import Pace
from lowlevel_simclr.training.pictures import draw_or_name, draw_views
from lowlevel_simclr.training.plan import Plan
from lowlevel_simclr.training.progress import Progress
from lowlevel_simclr.training.replicas import choose_own_rows
from lowlevel_simclr.training.saving import check_state, restore_state, save_state
from lowlevel_simclr.training.step import Batch, Metrics
from lowlevel_simclr.training.strategies import compile_together
from lowlevel_simclr.training.workers import Team, ask_any, run_everywhere, run_together

ENDLESS = 2**40  # the number of steps for which a run with a time limit prepares batches; it never makes as many
WORKERS_ANSWER = 30.0  # seconds that the other workers have to end their call when one worker is asked to stop


class Session:
    """The objects of a run while this process trains it. The method `finish` trains and evaluates."""

    def __init__(
        self,
        plan: Plan,
        images: DataSet,
        run: Run,
        team: Team,
        learners: list[Learner],
        profile: bool = False,
        started: float | None = None,
    ) -> None:
        """Restore the last checkpoint, and print what will be trained.

        Args:
            plan: the plan of the run.
            images: the data set of the run.
            run: the run folder.
            team: the replicas.
            learners: the networks and the optimizer of each replica of this process, see `build_learners`.
            profile: whether to profile the steps of one host call.
            started: when the program began, by `time.monotonic`. A budget counts from here. None: now.
        """
        self.plan, self.images, self.run, self.team, self.profile = plan, images, run, team, profile
        self.learners = learners
        self.learner = learners[0]  # all learners have the same state
        run.write_variables(describe_variables(self.learner.optimizer))
        self.sample = draw_knn_sample(images, plan.seed)
        first = restore_state(run, team, self.learners)
        self.pace = Pace(plan.learning_rate, plan.warmup_steps / plan.steps) if plan.budget else None
        self.course = plan_course(plan, run, first, time.monotonic() if started is None else started)
        self.calendar = make_calendar(plan, first, self.course.last)
        self.checkup = Checkup(plan, images, self.learner, self.sample)
        self.watch = Watch(plan, run, self.calendar.first, self.checkup)
        print_start(plan, run, images, self.learner, self.calendar.first, team.workers)

    def finish(self) -> dict[str, Any]:
        """Train to the last step, evaluate, and return the contents of evaluation.json.

        With several workers (processes), only worker 0, the chief, evaluates, and the others return {}. They wait for
        the chief, because TensorFlow would take their exit for a failure.

        Raises:
            Stopped: if a signal asked the program to stop while it trained. The state is saved first.
        """
        self.train()
        tell_stage("evaluating the encoder (the training is saved)")
        evaluation = {}
        if self.team.workers.chief:
            evaluation = conclude(self.plan, self.run, self.images, self.learner, self.sample, self.watch.verdicts)
        ask_any(self.team.workers, False)
        return evaluation

    def train(self) -> None:
        """Train in host calls of a few steps each. After each call, do what is due: metrics, check-ups, checkpoints.

        A host call is one call into TensorFlow that makes several steps. During the first one, a signal stops the
        program at once, because there is nothing to save yet and compiling can take minutes. Later, the program notes
        the signal and stops when the state is saved.

        Raises:
            Stopped: see `finish`.
        """
        calendar, workers = self.calendar, self.team.workers
        if calendar.first >= calendar.last:
            return
        tell_stage("compiling the first step")
        batches, compiled = self._make_batches(), functools.cache(self._compile_steps)
        print_before_steps(workers, calendar.checkup_every > 0 and self.sample is not None)
        bar = open_bar("training", calendar.last, "steps", calendar.first, keep=True)
        # The stack is entered before the background worker and left after it. So signals are noted until the worker has
        # done its last save.
        with bar, contextlib.ExitStack() as stack, BackgroundWorker() as beside:
            noting = note_stop_requests(WORKERS_ANSWER if workers.count > 1 else None)
            asked = (lambda: None) if is_watched() else stack.enter_context(noting)
            progress = Progress(self.plan, self.run, bar, self.watch.add if workers.chief else _ignore)
            done, calls, before = calendar.first, 0, time.perf_counter()
            sides: set[int] = set()  # the sizes of views for which the step is compiled
            while done < self.calendar.last:
                segment = self._enter_segment(done, beside)
                calendar, bar.total = self.calendar, self.calendar.last
                count = min(calendar.find_next_stop(done), segment.last) - done
                compiles = segment.side not in sides
                if compiles and self.plan.budget:
                    count = 1  # so that the duration of the call is that of the compilation
                    self.course.note_compiling()
                sides.add(segment.side)
                steps = compiled(segment.side)
                examined = workers.chief and calendar.is_checkup_due(done + count)
                weights = self.checkup.take_weights() if examined else []
                if self.profile and calls == 1:
                    beside.wait()  # so that the trace holds only steps
                with self._profile(calls == 1, count):  # the second call, because the first one traces and compiles
                    metrics = _call(steps, batches, count)
                calls += 1
                seconds = time.perf_counter() - before
                if compiles and self.plan.budget:
                    metrics.loss.numpy()  # waits for the device
                    self.course.note_compiled(done + count, segment.side)
                found = self.checkup.measure(weights) if examined else {}
                beside.do(functools.partial(progress.record, done, metrics, seconds, found))
                if calls == 1:  # the user no longer waits for the first step
                    tell_stage("training")
                    asked = stack.enter_context(noting) if is_watched() else asked
                    beside.do(functools.partial(check_state, done + count, self.learner.take_snapshot()))
                    draw = functools.partial(draw_views, self.plan, self.images)
                    beside.do(functools.partial(draw_or_name, self.run.plots / "views.png", draw))
                    log = functools.partial(self.run.log_picture, step=done + count)
                    beside.do(functools.partial(draw_or_name, self.run.plots / "views.png", log))
                done += count
                stops = ask_any(workers, bool(asked()))
                if (calendar.is_checkpoint_due(done) or stops) and workers.chief:
                    beside.do(functools.partial(save_state, self.plan, self.run, done, self.learner.take_snapshot()))
                if stops:
                    beside.wait()
                    ask_any(workers, False)  # all workers wait here until the chief has saved
                    raise Stopped(*_describe_stop(asked(), done, calendar.last))
                before = time.perf_counter()
        if asked():
            raise Stopped(*_describe_stop(asked(), done, calendar.last))

    def _enter_segment(self, done: int, beside: BackgroundWorker) -> Segment:
        """Return the segment of the step after `done`. Set the learning rate and the calendar to this segment."""
        if self.course.needs_decision(done):
            beside.wait()  # after the background worker has read all metrics, the device has made all steps
        segment = self.course.find_segment(done)
        if self.pace:
            self.pace.enter(segment)
        self.calendar = dataclasses.replace(self.calendar, last=self.course.last)
        return segment

    @functools.cached_property
    def _fetch(self) -> Gather | None:
        """The function that gathers a batch on the device, see `make_fetch`. It is the same for all sizes of views."""
        return make_fetch(self.plan, self.images)

    def _compile_steps(self, side: int) -> Callable[..., Metrics]:
        """Return a function that makes a number of steps on all replicas of this process, each with its own batches.

        Args:
            side: the side of a view in pixels (S).
        """
        team = self.team
        parts = [(*take_side(self.plan, learner, side), replica) for learner, replica in zip(self.learners, team.local)]
        if team.strategy is not None:
            one_steps = [make_step(*part, self.pace) for part in parts]
            return run_together(team, compile_together(team.strategy, team.local, one_steps))
        return run_everywhere(team, [make_steps(*part, self._fetch, self.pace) for part in parts])

    def _make_batches(self) -> list[Iterator[Batch]]:
        """Return an iterator over batches for each replica of this process.

        The batches hold only the images of that replica.
        """
        plan, images = self.plan, select_training_images(self.images, self.plan.train_on)
        shares = [
            choose_own_rows(replica.rank, replica.count, plan.batch_size, plan.micro_batches)
            if replica.count > 1
            else None
            for replica in self.team.local
        ]
        last = ENDLESS if plan.budget else plan.steps
        wanted = plan.batch_size, plan.seed, self.calendar.first, last
        return [iter(make_batches(images, *wanted, own, plan.data_on == "host")) for own in shares]

    @contextlib.contextmanager
    def _profile(self, now: bool, count: int) -> Iterator[None]:
        """Profile the block, if the user gave --profile and `now` is true.

        The method writes the trace to TensorBoard's folder, and prints its table.
        """
        if not (self.profile and now):
            yield
            return
        found: list[profiler.Traced] = []
        with profiler.record_trace(self.run.tensorboard, found):
            yield
        names = self.learner.encoder.name, self.learner.projection.name
        tqdm.write(profiler.format_trace(found[0], count, *names))
        tqdm.write(f"To see the trace, run: tensorboard --logdir {show_name(self.run.tensorboard)}")


def build_learners(plan: Plan, channels: int, team: Team, resumes: bool) -> list[Learner]:
    """Return the learner of each replica of this process. This happens before anything is written into the run folder.

    Args:
        plan: the plan of the run.
        channels: the number of channels of an image (C).
        team: the replicas.
        resumes: whether a checkpoint will replace the initial weights. If so, a file of initial weights is not needed.

    Raises:
        ModelError: if the settings of the encoder do not fit the images, or if its initial weights cannot be used.
    """
    if resumes:
        plan = dataclasses.replace(plan, model=dataclasses.replace(plan.model, weights="random"))
    learners = []
    for replica in team.local:
        with tf.device(replica.device or None):
            learners.append(build_learner(plan, channels))
    return learners


def _ignore(rows: Sequence[Row]) -> None:
    """Do nothing with the rows of a host call."""


def _describe_stop(number: int | None, done: int, last: int) -> tuple[str, int]:
    """Return the arguments of `Stopped`: a sentence and a signal. Without `number`, another worker got the signal."""
    name = "another worker" if number is None else name_signal(number)
    text = f"Stopped by {name} and saved at step {done} of {last}. Run the same command again to resume."
    return text, number or signal.SIGTERM


def _call(steps: Callable[..., Metrics], batches: list[Iterator[Batch]], count: int) -> Metrics:
    """Make `count` steps in one host call, and return their metrics, (count,) each.

    The device may still be computing the metrics when the call returns.
    """
    try:
        return steps(batches, tf.constant(count, tf.int32))
    except tf.errors.OpError as error:
        raise recover_data_error(error) or error from None
