"""Times steps under XLA with the loop inside and outside: python -m bench.step.bench_step_program [--out FILE] [flags].

    program   several steps and the loop over them are one program of XLA; training does this
    outside   XLA compiles one step, and TensorFlow's loop calls it

The bench times both and the encoder alone alternately, in several processes (`step_ways.py`). Without a GPU, give
`--xla on`.
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
