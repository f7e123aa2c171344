"""Times whole training steps: python -m bench.step.bench_step [--encoder resnet50 --batch-size 256] [--json FILE].

Five forms:

    whole            the training job: its input, views, f, g, loss, gradient, update, metrics read
    encoder          f alone, forward and backward on synthetic views, same precision, one tf.function
    plain            stock Keras and TensorFlow as a competent user writes them (plain_step.py), float32
    plain bfloat16   the same under Keras's mixed_bfloat16
    torch            the same step in PyTorch (torch_step.py), where it is installed and the encoder is ResNet-50

Forms take turns, a few steps a turn, so that a neighbour's load falls on all alike. The order of a turn is drawn anew
each time and a form steps once before it is timed, for what ran before leaves its threads and memory behind. First the
whole job and the encoder alone, which differ by little, take three times as many turns, shared out among processes of
their own, for one process keeps a ratio that another does not have. Then, in this one, the job and the others.

Checkpoints and evaluation are apart. The step is then split by stage: functions that end after the views, f, g, the
loss, the gradient and the update take turns with the whole step, and a stage is the difference of two medians. Peak
memory is that of a process of its own that trains a few steps. Operations are counted from the layers (2 a
multiply-add, backward twice forward) and set against a matrix product timed in the same minutes. What a large batch by
micro-batches costs is bench_micro_batch.py's subject. `--compare OLD` ends with exit code 1 where this
result is slower than an older one; see compare.py.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bench import harness, utilisation
from bench.baselines import plain_step
from bench.report import compare
from lowlevel_simclr.config.identity import replace
from lowlevel_simclr.config.settings import Config
from lowlevel_simclr.data import batches, catalog
from lowlevel_simclr.data.catalog import select_training_images
from lowlevel_simclr.model import encoder
from lowlevel_simclr.run import environment
from lowlevel_simclr.runtime import precision
from lowlevel_simclr.training.learner import build_learner, list_trainable_variables
from lowlevel_simclr.training.loop import make_fetch, make_steps, make_views
from lowlevel_simclr.training.plan import make_plan

GEMM = 2048
ORDER_SEED = 0
MODULE = "bench.step.bench_step"  # run as a program its name is another
PAIR_TURNS = 3  # turns of the whole job and the encoder, for each of the others
STAGES = ("views", "f forward", "g forward", "loss", "backward", "optimizer")
REST = "input, loop and metrics"
Call = Callable[[], Any]
Steps = Callable[[int], Any]  # that many steps, and their end waited for
Times = dict[str, dict[str, list[float]]]  # of each form, "wall" and "processor" seconds of each turn


# Forms


def configuration(chosen: argparse.Namespace) -> Config:
    """The job's configuration: the shapes at 32 pixels, LARS, the flags."""
    config = replace(
        Config(),
        image_size=chosen.image_size,
        encoder=chosen.encoder,
        stem=chosen.stem,
        batch_size=chosen.batch_size,
        optimizer="lars",
        learning_rate=0.3,
        temperature=0.1,
        precision=chosen.precision,
        ops=chosen.ops,
        xla=chosen.xla,
        steps=1_000_000,
    )
    return replace(config, micro_batch=str(chosen.micro_batch)) if chosen.micro_batch else config


class Job:
    """The training job, ready to step."""

    def __init__(self, config: Config, **planned: Any) -> None:
        """Data, plan, f, g, optimizer, the compiled loop and its batches; `planned` replaces fields of the plan."""
        self.config = config
        self.images = catalog.load_dataset(config.data.dataset, None, config.train.seed)
        self.plan = dataclasses.replace(make_plan(config, self.images), **planned)
        self.learner = build_learner(self.plan, 3)
        self.fetch = make_fetch(self.plan, self.images)
        self.steps = make_steps(self.plan, self.learner, fetch=self.fetch)
        self.pixels = select_training_images(self.images)
        wanted = (config.train.batch_size, config.train.seed, 0, self.plan.steps)
        self.batches = iter(batches.make_batches(self.pixels, *wanted, with_images=self.fetch is None))

    def run(self, count: int) -> float:
        """`count` steps in one host call; the last loss."""
        return float(self.steps(self.batches, tf.constant(count, tf.int32)).loss.numpy()[-1])


def encoder_alone(job: Job) -> Call:
    """Forward and backward of f on synthetic views; all gradients of the weights are made."""
    f, size = job.learner.encoder, job.config.model.image_size
    kind = tf.as_dtype(job.plan.precision)
    rows = 2 * job.config.train.batch_size
    x = tf.cast(tf.random.stateless_uniform((rows, size, size, 3), [1, 2]), kind)
    dh = tf.cast(tf.random.stateless_normal((rows, f.output_shape[-1]), [3, 4]), f.compute_dtype)

    @tf.function(jit_compile=job.plan.jit_compile)
    def forward_and_backward() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            h = f(x, training=True)
        return tape.gradient(h, f.trainable_variables, output_gradients=dh)

    return lambda: forward_and_backward()[0]


def baselines(job: Job, chosen: argparse.Namespace) -> tuple[dict[str, Steps], dict[str, str]]:
    """The steps of the forms that others would write; and why some are missing."""
    config = job.config
    made: dict[str, Steps] = {}
    missing: dict[str, str] = {}
    asked = set() if chosen.no_baselines else {"plain", "plain bfloat16", "torch"}
    size, batch_size, widths = chosen.image_size, chosen.batch_size, config.model.projection_widths
    for name, policy in (("plain", "float32"), ("plain bfloat16", "mixed_bfloat16")):
        if name in asked and policy == "mixed_bfloat16" and not precision.has_bfloat16():
            missing[name] = "this device is not made for bfloat16"
        elif name in asked:
            made[name] = repeated(
                plain_step.prepared(chosen.encoder, chosen.stem, size, batch_size, widths, job.pixels, policy)
            )
    precision.set_precision(job.plan.precision)
    why = _no_torch(chosen) if "torch" in asked else "not asked for"
    if why:
        missing["torch"] = why
    else:
        from bench.baselines import torch_step

        autocast = job.plan.precision == "bfloat16"
        made["torch"] = repeated(torch_step.prepared(size, batch_size, widths, job.pixels, autocast))
    return made, missing


def repeated(call: Call) -> Steps:
    """`call`, many times, and the last answer waited for once, as the job waits for the metrics of several steps."""

    def calls(count: int) -> None:
        for _ in range(count):
            last = call()
        np.asarray(last)

    return calls


def _no_torch(chosen: argparse.Namespace) -> str | None:
    if (chosen.encoder, chosen.stem) != ("resnet50", "imagenet"):
        return "torch_step.py has ResNet-50 with the ImageNet stem only"
    if tf.config.list_physical_devices("GPU"):
        return "torch_step.py trains on the processor"
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed: pip install torch==2.13.0"
    return None


# Stages


def stages(job: Job, turns: int) -> dict[str, float]:
    """Seconds of each stage: the difference of medians of steps that end after it and after the one before.

    Steps that end before the update leave f, g and the slots as they are, but for BatchNorm's statistics.
    """
    learner, plan, config = job.learner, job.plan, job.config
    views = make_views(plan)
    given = next(job.batches)
    batch = job.fetch(*given) if job.fetch else given

    def until(last: int) -> Steps:
        @tf.function(jit_compile=plan.jit_compile)
        def part() -> Any:
            x = views(*batch)
            with tf.GradientTape() as tape:
                h = learner.encoder(x, training=True) if last >= 1 else x
                z = learner.projection(h, training=True) if last >= 2 else h
                if last < 3:
                    return tf.reduce_sum(tf.cast(z[0], tf.float32))
                losses, _ = plan.implementation.nt_xent_and_top1(z, temperature=config.loss.temperature)
                scaled = learner.loss_scale.scale_loss(tf.reduce_mean(losses))
            if last == 3:
                return scaled
            found = tape.gradient(scaled, list_trainable_variables(learner.encoder, learner.projection))
            if last == 5:
                learner.optimizer.apply(found, tf.constant(1e-3))
                return scaled
            return found

        return repeated(lambda: tf.nest.flatten(part())[0])

    ends = {STAGES[last]: until(last) for last in range(len(STAGES))} | {REST: job.run}
    medians = [np.median(times["wall"]) for times in take_turns(ends, turns, settle=1).values()]
    return {name: float(value) for name, value in zip(ends, np.diff([0.0, *medians]))}


# Timing


def take_turns(steps: dict[str, Steps], turns: int, count: int = 1, settle: int = 0) -> Times:
    """Wall and processor seconds of each form, every form once a turn in an order drawn anew, after two to warm up.

    Args:
        steps: the forms.
        turns: how often each is timed.
        count: steps that are timed together.
        settle: steps of a form before them that are not, for another form ran before.
    """
    for run in steps.values():
        run(count)
        run(count)
    times: Times = {name: {"wall": [], "processor": []} for name in steps}
    order, draw = list(steps), random.Random(ORDER_SEED)
    for _ in range(turns):
        draw.shuffle(order)
        for name in order:
            if settle:
                steps[name](settle)
            used, started = time.process_time(), time.perf_counter()
            steps[name](count)
            times[name]["wall"].append(time.perf_counter() - started)
            times[name]["processor"].append(time.process_time() - used)
    return times


def pair_times(chosen: argparse.Namespace) -> list[Times]:
    """What the turns of the whole job and the encoder alone took in each of the processes, one after another.

    Raises:
        SystemExit: one of them failed.
    """
    return [json.loads(of_own_process(MODULE, *chosen.arguments, "--pair-only")) for _ in range(chosen.processes)]


def of_own_process(module: str, *flags: str) -> str:
    """The last line that a bench of these flags prints in a process of its own.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run([sys.executable, "-m", module, *flags], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"the process of {' '.join([module, *flags])} failed: {done.stderr[-2000:]}")
    return done.stdout.splitlines()[-1]


def own_pair(chosen: argparse.Namespace) -> Times:
    """This process's share of the turns of the whole job and the encoder alone."""
    job = Job(configuration(chosen))
    pair: dict[str, Steps] = {"whole": job.run, "encoder": repeated(encoder_alone(job))}
    turns = math.ceil(PAIR_TURNS * chosen.turns / chosen.processes)
    return take_turns(pair, turns, chosen.steps_per_turn, settle=1)


def together(by_process: Sequence[Times]) -> Times:
    """The turns of all processes as those of one."""
    kinds = ("wall", "processor")
    return {
        name: {kind: [taken for each in by_process for taken in each[name][kind]] for kind in kinds}
        for name in by_process[0]
    }


def summary(times: dict[str, list[float]], steps: int, batch_size: int) -> dict[str, float]:
    """Of one form: seconds a step, and pairs a second by the median."""
    wall = np.array(times["wall"]) / steps
    p10, median, p90 = (float(value) for value in np.percentile(wall, (10, 50, 90)))
    return {
        "pairs_per_second": batch_size / median,
        "best_pairs_per_second": batch_size / float(wall.min()),
        "median_seconds": median,
        "minimum_seconds": float(wall.min()),
        "p10_seconds": p10,
        "p90_seconds": p90,
        "processor_seconds": min(times["processor"]) / steps,
    }


def ratios(times: Times) -> dict[str, dict[str, float]]:
    """How many times the pairs a second of each other form the whole job makes: by medians, minima, turn by turn."""
    whole = np.array(times["whole"]["wall"])
    found = {}
    for name, each in times.items():
        other = np.array(each["wall"])
        low, middle, high = (float(value) for value in np.percentile(other / whole, (10, 50, 90)))
        found[name] = {
            "by_medians": float(np.median(other) / np.median(whole)),
            "by_minima": float(other.min() / whole.min()),
            "by_processor": min(each["processor"]) / min(times["whole"]["processor"]),
            "turn_p10": low,
            "turn_median": middle,
            "turn_p90": high,
        }
    del found["whole"]
    return found


# Operations


def operations(job: Job) -> float:
    """Floating-point operations of a step: convolutions and dense layers of f and g, forward and backward."""
    return job.config.train.batch_size * utilisation.operations_of_pair([job.learner.encoder, job.learner.projection])


def gemm_rate(kind: str) -> float:
    """Operations a second of a square matrix product: the best of ten."""
    a = tf.cast(tf.random.stateless_normal((GEMM, GEMM), [1, 2]), kind)
    product = tf.function(lambda: tf.reduce_sum(tf.cast(tf.matmul(a, a)[0], tf.float32)))
    times = take_turns({"gemm": repeated(product)}, 10)["gemm"]["wall"]
    return 2.0 * GEMM**3 / min(times)


# Memory


def peak_memory(chosen: argparse.Namespace) -> int:
    """Peak memory of a process that trains a few steps: resident on a CPU, the allocator's on a GPU."""
    return int(of_own_process(MODULE, *chosen.arguments, "--memory-only"))


def own_peak(chosen: argparse.Namespace) -> int:
    """Three steps of the job in this process, and its peak."""
    Job(configuration(chosen)).run(3)
    held = environment.measure_peak_memory()
    return held["host"] if held["gpu"] is None else held["gpu"]


# The program


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """The whole result."""
    by_process = pair_times(chosen)
    times = together(by_process)
    against = ratios(times)
    job = Job(configuration(chosen))
    made, missing = baselines(job, chosen)
    if made:
        others = take_turns({"whole": job.run, **made}, chosen.turns, chosen.steps_per_turn, settle=1)
        against |= ratios(others)
        times |= {name: each for name, each in others.items() if name != "whole"}
    found = {name: summary(each, chosen.steps_per_turn, chosen.batch_size) for name, each in times.items()}
    split = {} if chosen.no_stages else stages(job, chosen.turns)
    del made
    rate, step_operations = {kind: gemm_rate(kind) for kind in ("float32", "bfloat16")}, operations(job)
    achieved = step_operations / found["whole"]["median_seconds"]

    def pairs(name: str) -> float | None:
        return found[name]["pairs_per_second"] if name in found else None

    return {
        "benchmark": "step",
        "device": device(),
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "config": {**_flags(chosen), "precision": job.plan.precision, "implementation": job.plan.implementation.name},
        "versions": _versions(),
        "whole_pairs_per_second": pairs("whole"),
        "encoder_pairs_per_second": pairs("encoder"),
        "plain_pairs_per_second": pairs("plain"),
        "plain_bfloat16_pairs_per_second": pairs("plain bfloat16"),
        "torch_pairs_per_second": pairs("torch"),
        "peak_memory_bytes": peak_memory(chosen) if not chosen.no_memory else None,
        "whole_against": against,
        "encoder_by_process": [ratios(each)["encoder"]["by_medians"] for each in by_process],
        "forms": found,
        "missing": missing,
        "stages_seconds": split,
        "operations_per_step": step_operations,
        "gemm_operations_per_second": rate,
        "of_gemm_peak": {kind: achieved / value for kind, value in rate.items()},
        "mfu": utilisation.share(achieved, 1.0, utilisation.gpu_name(), job.plan.precision),
    }


def device() -> str:
    """The GPU's name, or the processor's and how many of its cores."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))
    return harness.device_name()


def _flags(chosen: argparse.Namespace) -> dict[str, Any]:
    names = "encoder stem image_size batch_size micro_batch ops xla deterministic turns steps_per_turn"
    return {name: getattr(chosen, name) for name in names.split()}


def _versions() -> dict[str, str]:
    names = [name for name in ("tensorflow", "keras", "torch") if importlib.util.find_spec(name)]
    return {name: importlib.metadata.version(name) for name in names}


def text(result: dict[str, Any]) -> str:
    """What a person reads."""
    lines = [
        f"{result['device']}, {result['config']['encoder']}, batch {result['config']['batch_size']}, "
        f"{result['config']['precision']}, load {result['load']:.1f}"
    ]
    lines.append(
        f"{'form':<18}{'pairs/s':>9}{'best':>9}{'ms a step':>11}{'p10':>9}{'p90':>9}{'cpu ms':>9}{'whole is':>10}"
    )
    for name, form in result["forms"].items():
        times = "".join(f"{1e3 * form[key]:>9.0f}" for key in ("p10_seconds", "p90_seconds", "processor_seconds"))
        ratio = result["whole_against"].get(name, {}).get("by_medians")
        lines.append(
            f"{name:<18}{form['pairs_per_second']:>9.1f}{form['best_pairs_per_second']:>9.1f}"
            f"{1e3 * form['median_seconds']:>11.0f}{times}" + (f"{ratio:>9.3f}x" if ratio else "")
        )
    of_each = ", ".join(f"{each:.3f}" for each in result["encoder_by_process"])
    lines += [f"of the encoder, process by process: {of_each}"]
    lines += [f"{name}: {why}" for name, why in result["missing"].items()]
    whole = sum(result["stages_seconds"].values())
    lines += ["", f"{'stage':<26}{'ms':>9}{'share':>9}"] if result["stages_seconds"] else []
    lines += [f"{name:<26}{1e3 * value:>9.1f}{value / whole:>9.1%}" for name, value in result["stages_seconds"].items()]
    share = ", ".join(f"{value:.0%} of the {kind} matrix product" for kind, value in result["of_gemm_peak"].items())
    lines += ["", f"{result['operations_per_step'] / 1e9:.0f} GFLOP a step: {share}"]
    if result["mfu"]:
        lines.append(f"MFU {result['mfu']:.1%} of the data sheet's {result['config']['precision']} peak")
    if result["peak_memory_bytes"]:
        lines.append(f"peak memory {result['peak_memory_bytes'] / 2**20:.0f} MiB")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--encoder", default="resnet50", choices=encoder.NAMES)
    made.add_argument("--stem", default="imagenet", choices=encoder.STEMS)
    made.add_argument("--image-size", type=int, default=32, metavar="S")
    made.add_argument("--batch-size", type=int, default=256, metavar="N")
    made.add_argument("--micro-batch", type=int, default=None, metavar="N")
    made.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
    made.add_argument("--ops", default="native", choices=("native", "stock"))
    made.add_argument("--xla", default="auto", choices=("auto", "on", "off"))
    made.add_argument("--deterministic", default="on", choices=("on", "off"), help="TensorFlow's op determinism")
    made.add_argument("--turns", type=int, default=7, help="how often each form is timed, the first two thrice that")
    made.add_argument("--processes", type=int, default=3, help="among which the turns of the first two are shared out")
    made.add_argument("--steps-per-turn", type=int, default=4, help="steps of each form a turn")
    made.add_argument("--no-baselines", action="store_true", help="only the whole job and the encoder alone")
    made.add_argument("--no-stages", action="store_true", help="do not split the step: six more functions to compile")
    made.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    made.add_argument("--json", type=Path, help="where the result is stored")
    made.add_argument("--compare", type=Path, metavar="OLD", help="exit code 1 where slower than this result")
    made.add_argument("--memory-only", action="store_true", help=argparse.SUPPRESS)
    made.add_argument("--pair-only", action="store_true", help=argparse.SUPPRESS)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, store, print; returns the exit code."""
    chosen = parser().parse_args(arguments)
    if chosen.processes < 1:
        raise SystemExit(f"bench_step: --processes {chosen.processes} times nothing: give 1 or more")
    chosen.arguments = list(sys.argv[1:] if arguments is None else arguments)
    tf.get_logger().setLevel("ERROR")  # six steps that end in six places look to it like one that is traced too often
    if chosen.deterministic == "on":  # as the job has it by default
        tf.config.experimental.enable_op_determinism()
    if chosen.memory_only or chosen.pair_only:
        print(own_peak(chosen) if chosen.memory_only else json.dumps(own_pair(chosen)))
        return 0
    result = measure(chosen)
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(text(result))
    return compare.report(compare.read(chosen.compare), result) if chosen.compare else 0


if __name__ == "__main__":
    sys.exit(main())
