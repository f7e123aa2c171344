"""Times several forms of a step in turns of one process, and sums up what the turns took."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

ORDER_SEED = 0
Call = Callable[[], object]
Steps = Callable[[int], object]  # makes that many steps and waits for the last of them
Seconds = dict[str, list[float]]  # "wall" and "processor" seconds of each turn of one form
Times = dict[str, Seconds]  # the seconds of each form, by its name
Summary = dict[str, float]  # the summary of one form, see `summarize_turns`


def add_turn_flags(parser: argparse.ArgumentParser, turns_help: str = "how often each form is timed") -> None:
    """Add the flags that say how often and for how long each form is timed."""
    parser.add_argument("--turns", type=int, default=7, help=turns_help)
    parser.add_argument("--steps-per-turn", type=int, default=4, help="steps of each form in a turn")


def repeat_call(call: Call) -> Steps:
    """Return a function that makes `call` many times and waits for the last answer only.

    The job likewise waits once for the metrics of several steps.
    """

    def repeat(count: int) -> None:
        for _ in range(count):
            last = call()
        np.asarray(last)

    return repeat


def take_turns(steps: Mapping[str, Steps], turns: int, count: int = 1, settle: int = 0) -> Times:
    """Return wall and processor seconds of each form. In every turn each form is timed once, in a new random order.

    Every form first runs twice to warm up.

    Args:
        steps: the forms.
        turns: how often each is timed.
        count: steps that are timed together.
        settle: untimed steps that a form makes at the start of its turn, because another form ran before it.
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


def join_turns(by_process: Sequence[Times]) -> Times:
    """Join the turns of several processes, as if one process had taken them all."""
    kinds = ("wall", "processor")
    return {
        name: {kind: [taken for each in by_process for taken in each[name][kind]] for kind in kinds}
        for name in by_process[0]
    }


def summarize_turns(times: Seconds, steps: int, batch_size: int) -> Summary:
    """Return the seconds a step of one form, and its pairs a second by the median.

    Args:
        times: the times of the form.
        steps: the steps that each turn timed.
        batch_size: pairs in a step.
    """
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
