"""Tests misuse.py, which calls the ops with random, often wrong arguments. It must report wrong results and crashes."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest

from tests.faults import misuse
from tests.faults.misuse import Call, judge
from tests.support.host import on_the_host

FEW = 400  # calls, about 3 seconds; 22 of them failed this test before native and stock ops had the same checks


def make_module(name: str, act: Any) -> types.ModuleType:
    module = types.ModuleType(f"package.{name}")
    module.nt_xent = act
    return module


def copy(z: Any) -> Any:
    return np.ones_like(z)


def refuse(z: Any) -> Any:
    raise ValueError("z is wrong")


def refuse_wide(z: Any) -> Any:
    raise ValueError("z is float64. Use the stock op (--ops stock).")


def fail(z: Any) -> Any:
    raise AttributeError("z")


@pytest.mark.parametrize(
    ("native", "stock", "problem"),
    [
        (copy, copy, ""),
        (refuse, refuse, ""),
        (refuse, copy, "native: ValueError: z is wrong; stock: ["),
        (copy, lambda z: np.ones(3), "native: [((2,), 'float64')]; stock: [((3,), 'float64')]"),
        (refuse_wide, copy, ""),
        (refuse_wide, refuse, ""),
        (fail, refuse, "native raises AttributeError: z"),
        (refuse, fail, "stock raises AttributeError: z"),
    ],
)
def test_a_call_that_ends_wrongly_is_noticed(native: Any, stock: Any, problem: str) -> None:
    call = Call("nt_xent", {"z": np.zeros(2)})
    said = judge(call, make_module("native", native), make_module("stock", stock), (ValueError,))
    assert said.startswith(problem) and bool(said) == bool(problem)


def test_a_call_is_the_same_one_again() -> None:
    ops = set()
    for number in range(60):
        first, again = misuse.draw_call(number, 0), misuse.draw_call(number, 0)
        assert first.op == again.op and list(first.arguments) == list(again.arguments)
        ops.add(first.op)
    assert ops == set(misuse.SOUND)


def test_a_crash_is_counted_and_the_next_call_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    firsts = []

    class Process:
        returncode = 0

        def __init__(self, command: list[str], **more: Any) -> None:
            firsts.append(int(command[-1]))
            self.stdout = iter([f"{firsts[-1] + n}\n" for n in range(3)])
            self.returncode = -11

        def __enter__(self) -> Process:
            return self

        def __exit__(self, *error: object) -> None:
            """Do nothing."""

    monkeypatch.setattr(misuse.subprocess, "Popen", Process)
    count, wrong = misuse.try_calls(60.0, 0)
    assert firsts == list(range(0, 3 * misuse.MOST_CRASHES, 3)) and count == 3 * misuse.MOST_CRASHES
    assert len(wrong) == misuse.MOST_CRASHES and all("the process ended with -11" in each for each in wrong)


@on_the_host
def test_a_few_hundred_random_calls_end_rightly() -> None:
    assert misuse.make_few_calls(FEW, seed=0) == []
