"""Times whole steps by the loop around them: python -m bench.step.bench_step_loop [--out FILE] [flags of bench_step].

    called   the loop calls the step, a function: what a processor takes
    inline   the step's operations are the loop's own: what a GPU takes without XLA

and the encoder alone, in several processes (`step_ways.py`).
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from collections.abc import Sequence

from bench.step import bench_step, step_ways

WAYS = {
    "called": lambda config: bench_step.Job(config, inline_step=False),
    "inline": lambda config: bench_step.Job(config, inline_step=True),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, store, print."""
    step_ways.main("bench.step.bench_step_loop", __doc__, WAYS, "step_loop.json", arguments)


if __name__ == "__main__":
    main()
