"""Tests how names of files are printed: control characters and invisible characters must be escaped."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

from lowlevel_simclr.api.errors import REPORTED
from lowlevel_simclr.config.names import OneLineError, format_count, format_none, show_name
from lowlevel_simclr.config.settings import ConfigError

PACKAGE = Path(__file__).parents[2] / "lowlevel_simclr"
# The messages of these errors contain no names of files, only numbers and names of this package's variables.
QUOTE_NO_NAMES = {"Diverged", "EncoderChanged", "NonFiniteLoss", "NonFiniteRepresentation", "NonFiniteState"}


def test_a_number_and_its_noun_agree() -> None:
    """Test numbers in messages. Once, a run printed "skipped 1 images" and "1 classes"."""
    assert [format_count(count, "image") for count in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [format_count(count, "class", "classes") for count in (1, 3)] == ["1 class", "3 classes"]
    assert [format_none(count, "path") for count in (1, 2)] == ["No path", "None of the 2 paths"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("dog/a b.png", "dog/a b.png"),
        ("schön/犬.png", "schön/犬.png"),
        ("000\x1b]0;PWNED\x07\x1b[31m.png", r"000\x1b]0;PWNED\x07\x1b[31m.png"),
        ("a\nerror: the disk is full\r", r"a\nerror: the disk is full\r"),
        ("\x9b31m", r"\x9b31m"),  # one character that means ESC [ on a terminal
        ("gpj.\u202eexe\u2028", r"gpj.\u202eexe\u2028"),  # a character that reverses text, and a line break
        (os.fsdecode(b"caf\xe9.png"), r"caf\xe9.png"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),  # an invisible letter
    ],
)
def test_a_name_is_one_printable_line(name: str, shown: str) -> None:
    assert show_name(name) == show_name(Path(name)) == shown == show_name(shown)
    assert shown.isprintable() and shown.encode()


def test_an_error_that_is_a_message_is_printable() -> None:
    error = ConfigError("the file \x1b[2J\n.png")
    assert str(error) == r"the file \x1b[2J\n.png" and isinstance(error, ValueError)
    assert str(OneLineError("one\n", "  two")) == "one\\n\n  two"


def test_every_error_that_the_programs_print_is_of_that_kind() -> None:
    others = {error.__name__ for error in REPORTED if not issubclass(error, OneLineError)}
    assert others == QUOTE_NO_NAMES


def test_what_is_printed_of_a_path_goes_through_it() -> None:
    """Test that a path is given to `print`, `tqdm.write` and `warn` only through `show_name`, which escapes it."""
    raw = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] in (
                "print",
                "write",
                "warn",
                "say",
            ):
                fields = [part for part in ast.walk(call) if isinstance(part, ast.FormattedValue)]
                raw += [
                    (path.name, call.lineno, ast.unparse(field.value))
                    for field in fields
                    if re.search(r"path|folder|plots|\.out\b", ast.unparse(field.value))
                    and not ast.unparse(field.value).startswith("show_name(")
                ]
    assert raw == []
