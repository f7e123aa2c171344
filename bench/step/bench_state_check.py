"""Times the check for NaN in the state of a run: python -m bench.step.bench_state_check [--turns 9] [--out FILE].

The state of a run is its weights and its optimizer variables. With the default settings, a run checks all of it before
each checkpoint. The bench times training steps and checks in turns. In each turn it times STEPS steps together, and
CHECKS checks together. The cost of the check is its smallest processor time, divided by the processor time of the steps
between two checkpoints. The measured time includes the copies of the state to NumPy, which a checkpoint needs anyway.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import hardware, harness
from bench.step import turns
from bench.step.job import Job
from lowlevel_simclr.config.identity import replace
from lowlevel_simclr.config.settings import Config
from lowlevel_simclr.training.saving import check_state

NAME = "state_check.json"
BAR = 0.002  # the largest allowed cost of the check, as a share of the processor time of the steps
STEPS = 4  # the steps in one turn
CHECKS = 100  # the checks in one turn


def measure(config: Config, count: int) -> dict[str, Any]:
    """Return the result to store.

    Args:
        config: the configuration of the run.
        count: the number of turns.
    """
    job = Job(config)
    state = job.learner.take_snapshot()

    def check(times: int) -> None:
        for _ in range(times):
            check_state(1, state)

    forms: dict[str, turns.Steps] = {"steps": lambda _: job.run(STEPS), "checks": lambda _: check(CHECKS)}
    taken = turns.take_turns(forms, count)
    step = min(taken["steps"]["processor"]) / STEPS
    once = min(taken["checks"]["processor"]) / CHECKS
    every = job.plan.checkpoint_every
    return {
        "benchmark": "state_check",
        "device": hardware.name_results_folder(),
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "encoder": config.model.encoder,
        "batch_size": config.train.batch_size,
        "state_bytes": sum(tensor.shape.num_elements() * tensor.dtype.size for tensor in state.values()),
        "steps_between_checks": every,
        "step_processor_seconds": step,
        "check_processor_seconds": once,
        "share_of_a_step": once / (every * step),
        "bar": BAR,
    }


def format_result(result: dict[str, Any]) -> str:
    """Return a sentence with the cost of the check."""
    return (
        f"A check of {result['state_bytes'] / 1e6:.1f} MB takes {1e3 * result['check_processor_seconds']:.2f} ms of "
        f"processor time. A run makes one check in {result['steps_between_checks']} steps of "
        f"{1e3 * result['step_processor_seconds']:.0f} ms. The check takes {100 * result['share_of_a_step']:.4f} % "
        f"of their time. At most {100 * result['bar']:g} % is allowed."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the default settings, store the result and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9, help="how often steps and checks are timed")
    parser.add_argument("--batch-size", type=int, default=Config().train.batch_size)
    parser.add_argument("--out", type=Path, default=harness.choose_result_path(NAME), help="a JSON file")
    given = parser.parse_args(arguments)
    result = measure(replace(Config(), batch_size=given.batch_size), given.turns)
    harness.write_result(given.out, result)
    print(format_result(result))


if __name__ == "__main__":
    main()
