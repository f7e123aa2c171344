"""Prints the peak memory of a few training steps, in bytes: python -m bench.step.training_memory [--batch-size 256].

The peak is the resident memory on a processor, and the allocator's on a GPU. Peak memory belongs to a whole process, so
other benches run this one in a separate process by `measure_training_memory`.
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

STEPS = 3


def measure_training_memory(choices: JobChoices, deterministic: str = "on") -> int:
    """Return the peak bytes of a separate process that trains a few steps.

    Raises:
        SystemExit: the process failed.
    """
    flags = [*list_job_flags(choices), "--deterministic", deterministic]
    return int(processes.read_last_line("bench.step.training_memory", *flags))


def train_and_read_peak(choices: JobChoices) -> int:
    """Train a few steps in this process and return its peak bytes."""
    Job(configure_job(choices)).run(STEPS)
    held = environment.measure_peak_memory()
    peak = held["host"] if held["gpu"] is None else held["gpu"]
    assert peak is not None
    return peak


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_job_flags(parser)
    parser.add_argument(
        "--deterministic", default="on", choices=("on", "off"), help="whether TensorFlow's op determinism is on"
    )
    chosen = parser.parse_args(arguments)
    tf.get_logger().setLevel("ERROR")
    if chosen.deterministic == "on":
        tf.config.experimental.enable_op_determinism()
    print(train_and_read_peak(read_job_choices(chosen)))


if __name__ == "__main__":
    main()
