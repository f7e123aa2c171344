"""Tests the code blocks and commands on the pages of the documentation: each must have a test, or say why not.

`tests/programs/test_readme.py` runs the blocks. If no test runs a block, a line before the block must give the reason.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bench.report import markers
from tests.support import pages

LANGUAGES = {"sh", "python", "text", "{toctree}", "{include}", "{admonition}", "{eval-rst}"}
# The allowed reasons for a block that no test runs. A long running time is no reason: such a test is marked `slow`.
REASONS = {"installs packages from the network", "needs a GPU", "needs several GPUs", "needs several hosts"}
NOT_RUN = [block for block in pages.list_all_blocks() if block.reason]
WITH_INDENTED_CODE = {"errors", "README"}  # test_errors.py tests errors.md; the README shows a tree of folders


def list_page_commands(prefix: str) -> list[str]:
    """Return the commands of all pages, in blocks and between backticks, that begin with `prefix`."""
    in_text = [command for page in pages.PAGES for command in pages.list_commands_in_text(page)]
    found = [*pages.list_distinct_commands(pages.list_all_blocks()), *in_text]
    return list(dict.fromkeys(command for command in found if command.startswith(prefix)))


BENCHES = list_page_commands("python -m bench.")


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.stem)
def test_a_block_has_a_language_that_tests_know(page: Path) -> None:
    assert {block.language for block in pages.list_blocks(page)} <= LANGUAGES
    fences = re.findall(r"^ *```.*$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(pages.list_blocks(page)), "a fence without a language, or inside a list"


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.stem)
def test_code_is_in_fences(page: Path) -> None:
    """Test that all code is between lines of ``` (fences), because no test finds code that is only indented."""
    assert page.stem in WITH_INDENTED_CODE or pages.list_indented_code(page) == []


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.stem)
def test_code_fits_beside_the_contents(page: Path) -> None:
    """Test that lines of code have at most 92 characters. On a laptop, the site hides the rest of a longer line."""
    lines = [
        line for block in pages.list_blocks(page) if block.language == "python" for line in block.text.splitlines()
    ]
    assert [line for line in lines if len(line) > 92] == []


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda block: f"{block.page.stem}: {block.text.splitlines()[0][:40]}")
def test_a_block_that_does_not_run_has_a_good_reason(block: pages.Block) -> None:
    """Test that the reason why no test runs a block is an allowed one. `pytest -v` lists these blocks."""
    assert block.reason in REASONS and block.language in ("sh", "python")


def test_a_reason_stands_before_a_block() -> None:
    """Test that each reason is directly before its block. With a line between the two, the reason has no effect."""
    text = "".join(page.read_text(encoding="utf-8") for page in pages.PAGES)
    assert len(re.findall(r"^<!-- not run:", text, re.MULTILINE)) == len(NOT_RUN)


@pytest.mark.parametrize("command", list_page_commands("make "))
def test_a_make_target_exists(command: str) -> None:
    assert re.search(
        rf"^{shlex.split(command)[1]}:", (pages.ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )


@pytest.mark.parametrize("command", BENCHES)
def test_a_bench_exists(command: str) -> None:
    assert importlib.util.find_spec(shlex.split(command)[2]) is not None


@pytest.mark.slow
@pytest.mark.parametrize("module", sorted({shlex.split(command)[2] for command in BENCHES}))
def test_a_bench_has_the_flags_that_pages_give_it(module: str) -> None:
    command = [sys.executable, "-m", module, "--help"]
    said = subprocess.run(command, cwd=pages.ROOT, capture_output=True, text=True, check=True).stdout
    given = [flag for each in BENCHES if shlex.split(each)[2] == module for flag in shlex.split(each)[3:]]
    assert [flag for flag in given if flag.startswith("--") and " " not in flag and flag not in said] == []


@pytest.mark.parametrize(
    "command", [*list_page_commands("lowlevel-simclr "), *list_page_commands("python -m lowlevel")]
)
def test_a_command_starts_a_program_of_ours(command: str) -> None:
    program = pages.parse_program(command)
    assert program is not None
    assert importlib.util.find_spec(f"lowlevel_simclr.{program.name}") is not None


def test_pages_are_those_that_programs_write_into() -> None:
    assert pages.PAGES == markers.list_pages()
