"""Builds the training job whose steps the benches time. Also has the job's flags, and a way to run only its encoder."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf

from bench.step.turns import Call
from lowlevel_simclr.config import choices
from lowlevel_simclr.config.identity import replace
from lowlevel_simclr.config.settings import Config
from lowlevel_simclr.data import batches, catalog
from lowlevel_simclr.data.catalog import select_training_images
from lowlevel_simclr.training.implementation import Implementation
from lowlevel_simclr.training.learner import build_learner
from lowlevel_simclr.training.loop import compile_steps, make_fetch, make_step, make_steps
from lowlevel_simclr.training.plan import make_plan
from lowlevel_simclr.training.step import Batch


class JobChoices(NamedTuple):
    """The settings of the training job. Each field has the name of its flag, with underscores instead of dashes."""

    encoder: str = "resnet50"
    stem: str = "imagenet"
    image_size: int = 32
    batch_size: int = 256
    micro_batch: int | None = None
    precision: str = "auto"
    ops: str = "native"
    xla: str = "auto"


def add_job_flags(parser: argparse.ArgumentParser) -> None:
    """Add one flag to the parser for each field of `JobChoices`."""
    default = JobChoices()
    parser.add_argument("--encoder", default=default.encoder, choices=choices.ENCODERS)
    parser.add_argument("--stem", default=default.stem, choices=choices.STEMS)
    parser.add_argument("--image-size", type=int, default=default.image_size, metavar="S")
    parser.add_argument("--batch-size", type=int, default=default.batch_size, metavar="N")
    parser.add_argument("--micro-batch", type=int, default=default.micro_batch, metavar="N")
    parser.add_argument("--precision", default=default.precision, choices=("auto", "float32", "bfloat16", "float16"))
    parser.add_argument("--ops", default=default.ops, choices=("native", "stock"))
    parser.add_argument("--xla", default=default.xla, choices=("auto", "on", "off"))


def read_job_choices(chosen: argparse.Namespace) -> JobChoices:
    """Return the values of the flags that `add_job_flags` added."""
    return JobChoices(**{name: getattr(chosen, name) for name in JobChoices._fields})


def list_job_flags(choices: JobChoices) -> list[str]:
    """Return the command-line flags for these choices. A bench passes them to a separate process."""
    given = {name: value for name, value in choices._asdict().items() if value is not None}
    return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def configure_job(choices: JobChoices) -> Config:
    """Return the configuration of the job: these choices, the data set "shapes" and the optimizer LARS."""
    config = replace(
        Config(),
        image_size=choices.image_size,
        encoder=choices.encoder,
        stem=choices.stem,
        batch_size=choices.batch_size,
        optimizer="lars",
        learning_rate=0.3,
        temperature=0.1,
        precision=choices.precision,
        ops=choices.ops,
        xla=choices.xla,
        steps=1_000_000,
    )
    return replace(config, micro_batch=str(choices.micro_batch)) if choices.micro_batch else config


class Job:
    """The training job, ready to run steps: data, plan, networks, optimizer, compiled loop and batches."""

    def __init__(
        self,
        config: Config,
        *,
        implementation: Implementation | None = None,
        inline_step: bool | None = None,
        loop_outside: bool = False,
    ) -> None:
        """Build everything that a step needs.

        Args:
            config: the configuration of the job.
            implementation: the functions for the views, the loss and the update. None means those that training would
                use.
            inline_step: whether the loop contains the operations of the step instead of a call of a function (see
                `training.loop.compile_steps`). None means what training would do.
            loop_outside: whether the loop over steps stays outside XLA if XLA compiles the step. Training puts it
                inside.
        """
        self.config = config
        self.images = catalog.load_dataset(config.data.dataset, None, config.train.seed)
        replaced: dict[str, Any] = {"implementation": implementation, "inline_step": inline_step}
        replaced = {name: value for name, value in replaced.items() if value is not None}
        self.plan = dataclasses.replace(make_plan(config, self.images), **replaced)
        self.learner = build_learner(self.plan, 3)
        self.fetch = make_fetch(self.plan, self.images)
        if loop_outside and self.plan.jit_compile:
            self.steps = compile_steps(make_step(self.plan, self.learner), True, self.fetch)
        else:
            self.steps = make_steps(self.plan, self.learner, fetch=self.fetch)
        self.pixels = select_training_images(self.images)
        wanted = (config.train.batch_size, config.train.seed, 0, self.plan.steps)
        self.batches = iter(batches.make_batches(self.pixels, *wanted, with_images=self.fetch is None))

    def run(self, count: int) -> float:
        """Train for `count` steps with one call of the compiled loop, and return the loss of the last step."""
        return float(self.steps(self.batches, tf.constant(count, tf.int32)).loss.numpy()[-1])

    def take_batch(self) -> Batch:
        """Return the next batch with its images. If the batch has only row numbers, fetch the images of these rows."""
        given = next(self.batches)
        return self.fetch(*given) if self.fetch else given


def make_encoder_call(job: Job) -> Call:
    """Return a function without arguments that runs both passes of the encoder, forward and backward.

    The input of the encoder is a batch of synthetic views. The backward pass gives the gradients of the weights. The
    function computes in the job's precision. It is one tf.function, and XLA compiles it if XLA compiles the step of the
    job.
    """
    f, size = job.learner.encoder, job.config.model.image_size
    kind = tf.as_dtype(job.plan.precision)
    rows = 2 * job.config.train.batch_size
    x = tf.cast(tf.random.stateless_uniform((rows, size, size, 3), [1, 2]), kind)
    dh = tf.cast(tf.random.stateless_normal((rows, f.output_shape[-1]), [3, 4]), f.compute_dtype)

    @tf.function(jit_compile=job.plan.jit_compile)
    def run_forward_and_backward() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            h = f(x, training=True)
        return tape.gradient(h, f.trainable_variables, output_gradients=dh)

    return lambda: run_forward_and_backward()[0]
