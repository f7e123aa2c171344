"""Prints the peak memory of a few training steps, in bytes: python -m bench.step.training_memory [--batch-size 256].

On a CPU this is the peak of the resident memory, and on a GPU the peak of TensorFlow's allocator. A peak can be
measured only for a whole process. So other benches call `measure_training_memory`, which runs this program in a
separate process.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
from collections.abc import Sequence

import tensorflow as tf

from bench.step import processes
from bench.step.job import Job, JobChoices, add_job_flags, configure_job, list_job_flags, read_job_choices
from lowlevel_simclr.run import environment
from lowlevel_simclr.verification.every_op import silence_retracing_warnings

STEPS = 3


def measure_training_memory(choices: JobChoices, deterministic: str = "on") -> int:
    """Train for a few steps in a separate process, and return the peak memory of that process in bytes.

    Raises:
        SystemExit: if the process failed.
    """
    flags = [*list_job_flags(choices), "--deterministic", deterministic]
    return int(processes.read_last_line("bench.step.training_memory", *flags))


def train_and_read_peak(choices: JobChoices) -> int:
    """Train for a few steps in this process, and return the peak memory of this process in bytes."""
    Job(configure_job(choices)).run(STEPS)
    held = environment.measure_peak_memory()
    peak = held["host"] if held["gpu"] is None else held["gpu"]
    assert peak is not None
    return peak


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure the peak memory and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_job_flags(parser)
    parser.add_argument(
        "--deterministic", default="on", choices=("on", "off"), help="whether TensorFlow's op determinism is on"
    )
    chosen = parser.parse_args(arguments)
    if chosen.deterministic == "on":
        tf.config.experimental.enable_op_determinism()
    with silence_retracing_warnings():
        print(train_and_read_peak(read_job_choices(chosen)))


if __name__ == "__main__":
    main()
