"""Finds in the text of a compiled XLA program which arrays the program copies in its loops."""

from __future__ import annotations

import re

import tensorflow as tf


def read_compiled(function: tf.types.experimental.PolymorphicFunction, *arguments: object) -> str:
    """Return the optimized HLO (XLA's program text) of a jit-compiled function."""
    return str(function.experimental_get_compiler_ir(*arguments)(stage="optimized_hlo"))


def find_loop_bodies(text: str) -> dict[int, list[str]]:
    """Return the lines of the body of each loop, as a dict. A key is the loop's number of iterations.

    The lines of the loops inside a body belong to it. Loops whose number of iterations the program does not state are
    left out.
    """
    bodies: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        head = re.match(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{", line)
        if head:
            lines = bodies.setdefault(head.group(1), [])
        else:
            lines.append(line)
    found = {}
    for line in text.splitlines():
        trips = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
        if trips and re.search(r" while\(", line):
            found[int(trips.group(1))] = _list_lines(line, bodies)
    return found


def _list_lines(line: str, bodies: dict[str, list[str]]) -> list[str]:
    """Return the lines of the body of the loop in `line`, with those of the loops inside it."""
    name = re.search(r"body=%?([\w.\-]+)", line)
    assert name, line
    lines = bodies[name.group(1)]
    inner = [_list_lines(each, bodies) for each in lines if re.search(r" while\(", each)]
    return [*lines, *(each for part in inner for each in part)]


def list_copies(body: list[str]) -> list[str]:
    """Return the lines of a loop's body that copy an array. Copies of scalars are left out."""
    return [line.strip() for line in body if re.search(r" copy\(", line) and not re.search(r"= \w+\[\]", line)]
