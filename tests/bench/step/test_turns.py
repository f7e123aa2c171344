"""Tests the order in which a benchmark times the functions that it compares (forms).

In each turn, every form is timed once, in random order.
"""

from __future__ import annotations

from bench.step import turns


def test_forms_take_turns_in_changing_order_each_behind_a_step_of_its_own() -> None:
    seen: list[tuple[str, int]] = []
    forms = {name: lambda count, name=name: seen.append((name, count)) for name in "abc"}
    times = turns.take_turns(forms, 6, 4, settle=1)
    assert seen[:6] == [(name, 4) for name in "aabbcc"], "each form runs twice before the first turn"
    each_turn = [seen[start : start + 6] for start in range(6, len(seen), 6)]
    assert len(each_turn) == 6 and all(len(each["wall"]) == len(each["processor"]) == 6 for each in times.values())
    for turn in each_turn:
        assert sorted(turn) == sorted([(name, count) for name in "abc" for count in (1, 4)])
        assert turn[1::2] == [(name, 4) for name, _ in turn[::2]], "each form is timed right after its own untimed step"
    assert len({tuple(turn) for turn in each_turn}) > 1
