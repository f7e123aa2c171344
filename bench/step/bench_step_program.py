"""Times training steps with the loop inside or outside XLA: python -m bench.step.bench_step_program [--out FILE].

XLA compiles the step. The bench compares two ways to build the loop over the steps:

    program   XLA compiles several steps and the loop over them into one program; training does this
    outside   XLA compiles one step, and TensorFlow's loop calls it

It times both loops, and the encoder alone, in turns and in several processes (see step_ways.py). The flags of the
training job (job.py) set the encoder, the batch size and the precision. Without a GPU, add `--xla on`, because XLA is
then off by default.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from collections.abc import Sequence

from bench.step import step_ways
from bench.step.job import Job

WAYS: step_ways.Ways = {
    "program": Job,
    "outside": lambda config: Job(config, loop_outside=True),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both loops, store the result and print it."""
    step_ways.run_bench("bench.step.bench_step_program", __doc__, WAYS, "step_program.json", arguments)


if __name__ == "__main__":
    main()
