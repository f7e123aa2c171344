"""Times a large batch split into micro-batches: python -m bench.step.bench_micro_batch [--json FILE].

A large batch that does not fit into memory is split into parts (micro-batches), which are computed one after another.
Then a step computes the forward pass of every image twice. Let t_step be the time of a step on a small batch, which has
the size of one micro-batch, and let t_forward be the time of the forward pass of the small batch. Training on the large
batch cannot be faster than t_step / (t_step + t_forward) times the speed of training on the small batch. The bench
measures how close the large batch comes to this limit. Speeds are in pairs per second (pairs/s), where a pair is the
two views (randomly changed versions) of one image.

The bench times three programs in turns, in one process. In the code, each of them is called a form:

    whole      a step on the large batch, split into micro-batches
    step       a step on the small batch
    forward    the forward pass of the small batch: views, encoder and projection head, without gradients

Two separate processes train for a few steps and measure peak memory: one on the large batch, the other on the small
one.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bench import hardware, harness
from bench.step.job import Job, JobChoices, add_job_flags, configure_job, read_job_choices
from bench.step.training_memory import measure_training_memory
from bench.step.turns import Call, Steps, repeat_call, take_turns
from lowlevel_simclr.training.loop import make_views
from lowlevel_simclr.verification.every_op import silence_retracing_warnings


def make_forward_call(job: Job) -> Call:
    """Return a function without arguments that computes the outputs z of the projection head for one batch.

    The function keeps no activations, because it computes no gradient.
    """
    views, learner = make_views(job.plan), job.learner
    batch = job.take_batch()

    @tf.function(jit_compile=job.plan.jit_compile)
    def run_forward() -> tf.Tensor:
        return learner.projection(learner.encoder(views(*batch), training=True), training=True)

    return lambda: run_forward().numpy()


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Time the three programs, measure the peak memory, and return the result to store."""
    tf.config.experimental.enable_op_determinism()  # training enables it by default
    large = read_job_choices(chosen)
    choices = {"whole": large, "step": large._replace(batch_size=chosen.micro_batch, micro_batch=None)}
    jobs = {name: Job(configure_job(each)) for name, each in choices.items()}
    forward = repeat_call(make_forward_call(jobs["step"]))
    calls: dict[str, Steps] = {
        "whole": jobs["whole"].run,
        "step": lambda count: jobs["step"].run(count * chosen.small_steps),
        "forward": lambda count: forward(count * chosen.small_steps),
    }
    times = take_turns(calls, chosen.turns)
    counts = {"whole": 1, "step": chosen.small_steps, "forward": chosen.small_steps}
    seconds = {name: np.array(times[name]["wall"]) / counts[name] for name in calls}
    return {
        "benchmark": "micro_batch",
        "device": hardware.name_training_device(),
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "config": {
            **{name: getattr(chosen, name) for name in ("encoder", "stem", "image_size", "batch_size", "micro_batch")},
            "precision": jobs["whole"].plan.precision,
        },
        "versions": {"tensorflow": tf.__version__},
        "seconds": {
            name: {"median": float(np.median(each)), "minimum": float(each.min())} for name, each in seconds.items()
        },
        "of_possible_speed": {
            "by_medians": compute_share_of_possible(large, *(float(np.median(seconds[name])) for name in calls)),
            "by_minima": compute_share_of_possible(large, *(float(seconds[name].min()) for name in calls)),
        },
        "peak_memory_bytes": None if chosen.no_memory else measure_both_memories(choices),
    }


def measure_both_memories(choices: Mapping[str, JobChoices]) -> dict[str, int]:
    """Return the peak memory of training with each batch size, in bytes. Each is measured in a process of its own."""
    return {name: measure_training_memory(each) for name, each in choices.items()}


def compute_share_of_possible(choices: JobChoices, whole: float, step: float, forward: float) -> float:
    """Return the speed (pairs/s) of the large batch, divided by the highest possible speed.

    At the highest possible speed, each micro-batch takes the time `step` + `forward`.

    Args:
        choices: the settings of the training job on the large batch.
        whole: the time of a step on the large batch, in seconds.
        step: the time of a step on the small batch, which has the size of one micro-batch, in seconds.
        forward: the time of the forward pass of the small batch, in seconds.
    """
    assert choices.micro_batch is not None
    return choices.batch_size / choices.micro_batch * (step + forward) / whole


def format_result(result: dict[str, Any]) -> str:
    """Return the result as text to print."""
    config, seconds, share = result["config"], result["seconds"], result["of_possible_speed"]
    lines = [
        f"{result['device']}, {config['encoder']}, {config['stem']} stem, {config['image_size']} pixels, "
        f"batch {config['batch_size']} in micro-batches of {config['micro_batch']}, {config['precision']}"
    ]
    lines += [
        f"{name:<9} median {each['median']:.3f} s, minimum {each['minimum']:.3f} s" for name, each in seconds.items()
    ]
    lines.append(
        f"The large batch reaches {share['by_medians']:.3f} of the highest possible speed by the medians, and "
        f"{share['by_minima']:.3f} by the minima."
    )
    if result["peak_memory_bytes"]:
        whole, step = (result["peak_memory_bytes"][name] for name in ("whole", "step"))
        lines.append(
            f"Peak memory of the large batch: {whole / 2**20:.0f} MiB. This is {whole / step:.2f} times the peak "
            f"memory of a batch of {config['micro_batch']}."
        )
    return "\n".join(lines)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command-line flags."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_job_flags(made)
    made.set_defaults(batch_size=4096, micro_batch=256)
    made.add_argument("--turns", type=int, default=3, help="how often each of the three programs is timed")
    made.add_argument(
        "--small-steps",
        type=int,
        default=4,
        help="how many steps on the small batch are timed together; the same for forward passes",
    )
    made.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    made.add_argument("--json", type=Path, help="the file to store the result in")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, store and print the result; return the exit code."""
    chosen = make_parser().parse_args(arguments)
    with silence_retracing_warnings():
        result = measure(chosen)
    if chosen.json:
        harness.write_result(chosen.json, result)
    print(format_result(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
