"""Calls the ops with random, often wrong arguments: python -m tests.faults.misuse SECONDS [--seed S] [--out FILE].

A call must return, or raise one of the errors that the ops document. It must not crash the process. Each call is made
twice: with the C++ op (native), and with the same op built from TensorFlow's own ops (stock). Either both must return
results of the same shapes and types, or both must raise an error. There is one exception: the native op may refuse what
the stock op accepts, for example float64, if its error message names the stock op. The calls are made in a separate
process. If this process crashes, the program counts the crash and continues with the next call in a new process.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.record import read_whole, write_whole

MOST_CRASHES = 20  # after this number of crashes the program stops
WRONG = "WRONG "
WIDER = "--ops stock"  # the error message must have these words if the native op refuses what the stock op accepts


class Call(NamedTuple):
    """A call of an op: its name and its arguments."""

    op: str
    arguments: dict[str, Any]


def draw_call(number: int, seed: int) -> Call:
    """Return a random call of an op. Its arguments are valid, except that up to two are replaced by odd values.

    Args:
        number: the number of the call.
        seed: the seed of the whole series of calls.
    """
    chance = random.Random(f"{seed} {number}")
    op = chance.choice(list(SOUND))
    arguments = SOUND[op](chance)
    for _ in range(chance.choice([0, 1, 1, 2])):
        name = chance.choice(list(arguments))
        arguments[name] = chance.choice(ODD)(chance, arguments[name])
    return Call(op, arguments)


def _draw_shape(chance: random.Random) -> list[int]:
    return [chance.choice([0, 1, 2, 3, 5, 8, 17]) for _ in range(chance.randrange(5))]


def _draw_tensor(chance: random.Random, shape: list[int] | None = None, kind: str = "float32") -> Any:
    import numpy as np

    shape = _draw_shape(chance) if shape is None else shape
    draw = np.random.default_rng(chance.randrange(2**32))
    if kind.startswith(("int", "uint", "bool")):
        return draw.integers(0, 2 if kind == "bool" else 100, shape).astype(kind)
    return draw.normal(size=shape).astype(kind)


def _put_odd_value(chance: random.Random, value: Any) -> Any:
    """Return a copy of an array with an odd number at a random place. In a ViewParams, change one of its arrays."""
    import numpy as np

    if isinstance(value, tuple) and hasattr(value, "_replace"):
        field = chance.choice(value._fields)
        return value._replace(**{field: _put_odd_value(chance, getattr(value, field))})
    array = np.array(value)
    if array.size and array.dtype.kind in "fiu":
        odd = [float("nan"), float("inf"), -float("inf"), 1e38, -1.0, 0.0, 2.0**40]
        with np.errstate(all="ignore"):
            array.flat[chance.randrange(array.size)] = np.array(chance.choice(odd)).astype(array.dtype)
    return array


def _cut_rows(chance: random.Random, value: Any) -> Any:
    """Return at most the first two rows of an array. In a ViewParams, cut one of its arrays."""
    if isinstance(value, tuple) and hasattr(value, "_replace"):
        field = chance.choice(value._fields)
        return value._replace(**{field: getattr(value, field)[: chance.randrange(3)]})
    return value[: chance.randrange(3)] if hasattr(value, "shape") and value.ndim else value


ODD: list[Callable[[random.Random, Any], Any]] = [
    lambda chance, value: None,
    lambda chance, value: chance.choice(["text", b"bytes", [], [[]], {}, object()]),
    lambda chance, value: chance.choice([-1, 0, 1, 2, 7, 2**15, 2**31, 2**32, 2**63, 2**64, 10**30]),
    lambda chance, value: chance.choice([float("nan"), float("inf"), -1.0, 1e-45, 1e308]),
    lambda chance, value: _draw_tensor(chance),
    lambda chance, value: _draw_tensor(
        chance, kind=chance.choice(["float16", "float64", "int32", "int64", "uint8", "bool", "complex64"])
    ),
    _put_odd_value,
    _put_odd_value,
    _cut_rows,
]


def _make_projections(chance: random.Random) -> dict[str, Any]:
    z = _draw_tensor(chance, [2 * chance.randint(1, 9), chance.randint(1, 33)], chance.choice(["float32", "float64"]))
    return {"z": z, "temperature": chance.choice([0.1, 0.5, 1.0])}


def _make_update(chance: random.Random) -> dict[str, Any]:
    shape = _draw_shape(chance)
    rates = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "trust_coefficient": 1e-3}
    return {**{name: _draw_tensor(chance, shape) for name in ("weight", "gradient", "velocity")}, **rates}


def _make_drawing(chance: random.Random) -> dict[str, Any]:
    import numpy as np

    from lowlevel_simclr.config.settings import ViewRecipe

    size = {name: chance.randint(1, 40) for name in ("height", "width")}
    return {"seed": 3, "epoch": 2, "index": np.arange(chance.randint(0, 9)), "recipe": ViewRecipe(), **size}


def _make_making(chance: random.Random) -> dict[str, Any]:
    import numpy as np

    from lowlevel_simclr import reference
    from lowlevel_simclr.config.settings import ViewRecipe

    count, height, width = chance.randint(1, 4), chance.randint(1, 20), chance.randint(1, 20)
    params = reference.draw_view_params(0, 0, np.arange(count), ViewRecipe(), height, width)
    images = _draw_tensor(chance, [count, height, width, 3], "uint8")
    return {"images": images, "params": params, "size": chance.randint(1, 20), "mean": None, "std": None, "blur": True}


SOUND: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "nt_xent": _make_projections,
    "nt_xent_and_top1": _make_projections,
    "contrastive_top1": lambda chance: {"z": _make_projections(chance)["z"]},
    "lars_update": _make_update,
    "draw_view_params": _make_drawing,
    "make_views": _make_making,
}


def judge(call: Call, native: Any, stock: Any, allowed: tuple[type[Exception], ...]) -> str:
    """Make a call with the native and with the stock op. Return "" if both end as they must, otherwise what is wrong.

    Args:
        call: the call.
        native: a module with the native ops.
        stock: a module with the stock ops.
        allowed: the errors that an op may raise.
    """
    ended = []
    for module in (native, stock):
        try:
            found = getattr(module, call.op)(**call.arguments)
            ended.append([(tuple(each.shape), str(each.dtype)) for each in _list_results(found)])
        except allowed as error:
            ended.append(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        except Exception as error:  # noqa: BLE001, any other error is what this program looks for
            name = module.__name__.rpartition(".")[2]
            return f"{name} raises {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if WIDER in ended[0] and isinstance(ended[1], list):
        return ""
    if isinstance(ended[0], str) != isinstance(ended[1], str) or isinstance(ended[0], list) and ended[0] != ended[1]:
        return f"native: {ended[0]}; stock: {ended[1]}"
    return ""


def _list_results(found: Any) -> list[Any]:
    return list(found) if isinstance(found, (tuple, list)) else [found]


def make_calls(first: int, seed: int, seconds: float) -> None:
    """Make calls in this process. Print the number of each call before it, and what was wrong after it."""
    import tensorflow as tf

    from lowlevel_simclr import ops, stock

    end = time.monotonic() + seconds
    number = first
    while time.monotonic() < end:
        print(number, flush=True)
        call = draw_call(number, seed)
        problem = judge(call, ops, stock, (ValueError, TypeError, tf.errors.InvalidArgumentError))
        if problem:
            shown = {name: getattr(value, "shape", value) for name, value in call.arguments.items() if name != "params"}
            print(f"{WRONG}{number} {call.op} {' '.join(str(shown).split())[:300]}: {problem}", flush=True)
        number += 1


def make_few_calls(count: int, seed: int) -> list[str]:
    """Make the first `count` calls of a seed in this process, without a time limit. Return the wrong outcomes."""
    import tensorflow as tf

    from lowlevel_simclr import ops, stock

    allowed = (ValueError, TypeError, tf.errors.InvalidArgumentError)
    calls = [draw_call(number, seed) for number in range(count)]
    found = [(number, call.op, judge(call, ops, stock, allowed)) for number, call in enumerate(calls)]
    return [f"{number} {op}: {problem}" for number, op, problem in found if problem]


def try_calls(seconds: float, seed: int) -> tuple[int, list[str]]:
    """Make calls in separate processes. Return the number of calls and the wrong outcomes."""
    end, number, wrong, crashes = time.monotonic() + seconds, 0, [], 0
    while (left := end - time.monotonic()) > 0 and crashes < MOST_CRASHES:
        command = [sys.executable, "-m", "tests.faults.misuse", str(left), "--seed", str(seed), "--first", str(number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(WRONG):
                    wrong.append(line[len(WRONG) :].strip())
                elif line.strip().isdecimal():
                    number = int(line) + 1
        if process.returncode:
            crashes += 1
            wrong.append(f"{number - 1} {draw_call(number - 1, seed).op}: the process ended with {process.returncode}")
    return number, wrong


def main() -> int:
    """Make calls, store the counts, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="the JSON file for the numbers of calls and crashes")
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)  # for the other process, which makes the calls
    given = parser.parse_args()
    if given.first is not None:
        make_calls(given.first, given.seed, given.seconds)
        return 0
    count, wrong = try_calls(given.seconds, given.seed)
    if given.out:
        whole = read_whole(given.out)
        found = {"seconds": given.seconds, "seed": given.seed, "calls": count, "wrong": wrong}
        write_whole(given.out, {**whole, "misuse": found})
    print(*wrong, f"{count} calls, {len(wrong)} wrong", sep="\n")
    return 1 if wrong or not count else 0


if __name__ == "__main__":
    sys.exit(main())
