"""What a configuration comes to on this device and these images: the plan, and the parts that it is carried out with.

Not here: the loop, files, what is said to the user (`train.py`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from lowlevel_simclr import compat, data, distribute, encoder, optimizer, projection, step, stock, trace
from lowlevel_simclr.augment import two_views
from lowlevel_simclr.config import LOSS_FACTORS, Config, ConfigError

RESIDENT = 2**30  # bytes of images that `--data-on auto` puts on a GPU: six times CIFAR-10, an eighth of a small GPU


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the configuration comes to on this device and these images."""

    steps: int
    steps_per_epoch: int
    precision: str
    jit_compile: bool
    jit_compile_views: bool
    inline_step: bool
    implementation: step.Implementation
    learning_rate: float
    micro_batches: int
    replicas: int
    workers: int
    data_on: str

    def as_dict(self) -> dict[str, Any]:
        """For environment.json."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**values, "implementation": self.implementation.name}


def resolved_precision(config: Config) -> str:
    """The precision, where it is "auto" the one of this device."""
    return compat.fast_precision() if config.train.precision == "auto" else config.train.precision


def make_plan(config: Config, images: data.DataSet, team: distribute.Team = distribute.LONE) -> Plan:
    """Steps, precision, compilation and implementation, from the configuration, the images and this device.

    Raises:
        ConfigError: the batch has no equal shares for the replicas, or XLA or --data-on device are asked for with
            several.
        data.DataError: there are fewer images than a batch, or they are streamed and asked for on the device.
    """
    micro_batches = count_micro_batches(config, team.count)
    train_config = config.train
    per_epoch = data.steps_per_epoch(len(training_images(config, images)), train_config.batch_size)
    jit_compile = train_config.xla == "on" or (train_config.xla == "auto" and on_gpu())
    scaling = config.optimizer.learning_rate_scaling
    return Plan(
        steps=train_config.steps or per_epoch * train_config.epochs,
        steps_per_epoch=per_epoch,
        precision=resolved_precision(config),
        jit_compile=jit_compile,
        # Stock views are dozens of elementwise passes, which XLA makes a few: three to five times as fast on a CPU
        # too. The native op is one pass, outside XLA unless the step is compiled whole.
        jit_compile_views=train_config.xla != "off" and train_config.ops == "stock",
        inline_step=on_gpu(),  # a call is measured to pay on a processor, and not measured on a GPU
        implementation=implementation(train_config.ops, jit_compile),
        learning_rate=optimizer.scaled_learning_rate(config.optimizer.learning_rate, train_config.batch_size, scaling),
        micro_batches=micro_batches,
        replicas=team.count,
        workers=team.workers.count,
        data_on=place_of_data(config, images, team.count),
    )


def place_of_data(config: Config, images: data.DataSet, replicas: int) -> str:
    """Where the images lie while the run trains: host or device.

    Raises:
        ConfigError: the device is asked for, and there are several.
        data.DataError: the device is asked for, and the images are streamed.
    """
    chosen = config.data.data_on
    if chosen == "device":
        if replicas > 1:
            raise ConfigError(f"--data-on is device and there are {replicas} replicas: give auto, or --devices 1")
        data.refuse_resident(images)
    if chosen != "auto":
        return chosen
    if replicas > 1 or not on_gpu() or data.is_streamed(images):
        return "host"
    return "device" if training_images(config, images).nbytes <= RESIDENT else "host"


def on_gpu() -> bool:
    """Whether the step runs on a GPU."""
    return bool(tf.config.list_logical_devices("GPU"))


def implementation(ops: str, compiled: bool) -> step.Implementation:
    """Whose loss, views and update are used: chosen here alone, said at the start and kept in the run folder.

    Args:
        ops: native or stock.
        compiled: whether XLA compiles the step.
    """
    if ops == "native":
        from lowlevel_simclr import ops as native  # here, so that --ops stock runs without the binary

        chosen = step.Implementation.of("native", native)
        # XLA fuses the stock update by itself, on a GPU to some hundred kernels, of which the native one has a few.
        fused = compiled and not on_gpu()
        return chosen._replace(lars_update_all=stock.lars_update_all) if fused else chosen
    return step.Implementation.of("stock", stock)


def refuse_missing_library(ops: str) -> None:
    """The native library is loaded now, if its ops are asked for, and not when the first step is traced.

    Raises:
        ConfigError: it is missing, of another version, or does not load.
    """
    if ops != "native":
        return
    from lowlevel_simclr.ops import _library

    try:
        _library.library()
    except _library.NativeLibraryError as error:
        raise ConfigError(f"{str(error).removesuffix('.')}; or give --ops stock, which is slower") from error


def count_micro_batches(config: Config, replicas: int) -> int:
    """How many micro-batches a step has; their shares, and ghost groups, must come out even.

    Raises:
        ConfigError: they do not, or XLA is asked to compile a step of several replicas.
    """
    choice = config.train
    count = choice.batch_size // (int(choice.micro_batch) or choice.batch_size)
    if choice.batch_size % (count * replicas):
        raise ConfigError(
            f"--batch-size is {choice.batch_size} in {count} micro-batches, which have no equal shares for {replicas} "
            f"replicas: give a multiple of {count * replicas}"
        )
    share = choice.batch_size // (count * replicas)
    if choice.batch_norm == "ghost" and share % choice.ghost_batch:
        raise ConfigError(
            f"--ghost-batch is {choice.ghost_batch} and a replica has {share} images at a time: give a divisor of that"
        )
    if choice.xla == "on" and replicas > 1:
        raise ConfigError(f"--xla is on and there are {replicas} replicas, whose step XLA cannot compile: give auto")
    return count


def training_images(config: Config, images: data.DataSet) -> Any:
    """(n, H, W, C) uint8: the train split, or both with --train-on all."""
    return data.training_images(images, config.data.train_on)


def fetcher(config: Config, plan: Plan, images: data.DataSet) -> data.Gather | None:
    """What gathers the images of a batch on the device, put there now; None where the batches bring them."""
    return data.resident(training_images(config, images), on_gpu()) if plan.data_on == "device" else None


def view_maker(config: Config, plan: Plan) -> step.Views:
    """(epoch, index, images) -> both views of every image, by the configuration's recipe."""

    def views(epoch: tf.Tensor, index: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        return two_views(
            images,
            epoch,
            index,
            seed=config.train.seed,
            recipe=config.views,
            size=config.model.image_size,
            dtype=tf.as_dtype(plan.precision),
            implementation=plan.implementation,
            mean=config.model.input_mean,
            std=config.model.input_std,
        )

    # Autograph, which nothing here needs, would be half of the step's tracing.
    return tf.function(views, jit_compile=plan.jit_compile_views, autograph=False)


def new_learner(config: Config, plan: Plan, channels: int) -> step.Learner:
    """f and g with the weights that the seed gives, and an optimizer that has not moved."""
    model, choice = config.model, config.optimizer
    compat.set_precision(plan.precision)
    f = encoder.build(
        model.encoder, model.stem, model.image_size, channels, weights=model.weights, seed=config.train.seed
    )
    g = projection.build(
        f.output_shape[-1], model.projection_widths, seed=config.train.seed, batch_norm=model.projection_batch_norm
    )
    chosen = optimizer.build(
        choice.optimizer,
        step.trainable_variables(f, g),
        momentum=choice.momentum,
        weight_decay=choice.weight_decay,
        trust_coefficient=choice.trust_coefficient,
        beta_1=choice.beta_1,
        beta_2=choice.beta_2,
        epsilon=choice.epsilon,
        lars_update_all=plan.implementation.lars_update_all,
    )
    return step.new_learner(f, g, chosen, optimizer.loss_scale(plan.precision))


def steps_function(
    config: Config,
    plan: Plan,
    learner: step.Learner,
    replica: distribute.Replica = distribute.ALONE,
    fetch: data.Gather | None = None,
) -> step.StepsFunction:
    """The compiled loop over training steps of one replica; `fetch` as `fetcher` gives it."""
    warmup = round(config.optimizer.warmup_epochs * plan.steps_per_epoch)
    loss = trace.named("loss", loss_function(config, plan, replica))
    views = trace.named("views", view_maker(config, plan))

    def schedule(done: tf.Tensor) -> tf.Tensor:
        return optimizer.warmup_cosine(done, plan.learning_rate, warmup, plan.steps)

    def one_step(batch: step.Batch) -> step.Metrics:
        if plan.micro_batches == 1:
            return step.train_step(learner, views, loss, schedule, batch, replica)
        return step.cached_step(learner, views, loss, schedule, batch, plan.micro_batches, replica)

    return step.compile_steps(one_step, plan.jit_compile, fetch, plan.inline_step)


def loss_function(config: Config, plan: Plan, replica: distribute.Replica = distribute.ALONE) -> step.LossAndTop1:
    """z (2n, d) -> NT-Xent (2n,), in the convention that the configuration names, and top-1 (2n,)."""
    nt_xent_and_top1 = distribute.nt_xent_and_top1(replica, plan.implementation, config.loss.temperature)
    factor = LOSS_FACTORS[config.loss.loss_reduction]
    if factor == 1:
        return nt_xent_and_top1

    def scaled(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        losses, top1 = nt_xent_and_top1(z)
        return factor * losses, top1

    return scaled
