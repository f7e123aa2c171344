"""Times whole training steps in two kinds of loop: python -m bench.step.bench_step_loop [--out FILE] [job flags].

The job is the training job of job.py, and its flags set the encoder, the batch size and the precision. TensorFlow runs
the steps of the job in a loop. The bench compares two ways to build this loop:

    called   the loop calls a separate function, which is the step; this is the default on a CPU
    inline   the loop contains the operations of the step; this is the default on a GPU without XLA

It times both loops, and the encoder alone, in turns and in several processes (see step_ways.py).
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from collections.abc import Sequence

from bench.step import step_ways
from bench.step.job import Job

WAYS: step_ways.Ways = {
    "called": lambda config: Job(config, inline_step=False),
    "inline": lambda config: Job(config, inline_step=True),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both loops, store the result and print it."""
    step_ways.run_bench("bench.step.bench_step_loop", __doc__, WAYS, "step_loop.json", arguments)


if __name__ == "__main__":
    main()
