"""Times several programs in turns, in one process, and summarizes the times.

Each program runs training steps, or a part of a step. In the code, a program is called a form. In a turn every form is
timed once.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

ORDER_SEED = 0
Call = Callable[[], object]
Steps = Callable[[int], object]  # runs the given number of steps and waits for the last of them
Seconds = dict[str, list[float]]  # "wall" and "processor": the seconds of one form, with one value for each turn
Times = dict[str, Seconds]  # for each form, its seconds
Summary = dict[str, float]  # the summarized times of one form (see `summarize_turns`)


def add_turn_flags(parser: argparse.ArgumentParser, turns_help: str = "how often each program is timed") -> None:
    """Add two flags: one sets the number of turns, the other the number of steps that are timed together in a turn."""
    parser.add_argument("--turns", type=int, default=7, help=turns_help)
    parser.add_argument("--steps-per-turn", type=int, default=4, help="how many steps of a program are timed together")


def repeat_call(call: Call) -> Steps:
    """Return a function that runs `call` a given number of times and then waits for the last result.

    The training job does the same: it waits only once for the metrics of several steps.
    """

    def repeat(count: int) -> None:
        for _ in range(count):
            last = call()
        np.asarray(last)

    return repeat


def take_turns(steps: Mapping[str, Steps], turns: int, count: int = 1, settle: int = 0) -> Times:
    """Time every form once in each turn, and return the wall and processor seconds of each form.

    Every turn has a new random order. Before the first turn each form runs twice to warm up.

    Args:
        steps: for each form, the function that runs its steps.
        turns: the number of turns.
        count: the number of steps that are timed together in a turn.
        settle: the number of untimed steps that a form runs before it is timed. They remove the effects of the form
            that ran before it, for example on caches and threads.
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
    """Join the turns of several processes into one list for each form, as if one process had run them all."""
    kinds = ("wall", "processor")
    return {
        name: {kind: [taken for each in by_process for taken in each[name][kind]] for kind in kinds}
        for name in by_process[0]
    }


def summarize_turns(times: Seconds, steps: int, batch_size: int) -> Summary:
    """Return the seconds per step of one form, and its speed in pairs a second.

    Args:
        times: the seconds of the form in each turn.
        steps: the number of steps that each turn timed.
        batch_size: the number of pairs in a step.
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
