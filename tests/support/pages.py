"""Finds the code blocks, commands and links in the README and on the other pages of the documentation.

If a block cannot run in the tests, an HTML comment before it says why, for example <!-- not run: needs a GPU -->. Such
a comment is not visible on the page.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\S+)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MARKED_FENCE = re.compile(rf"(?:^<!-- not run: ([^\n]*) -->\n\n?)?{FENCE.pattern}", FENCE.flags)
LINK = re.compile(r"(?<!`)\]\(([^)\s]+)\)")
PROGRAM = re.compile(
    r"(?:lowlevel-simclr |python -m lowlevel_simclr\.)(train|evaluate|embed|report|export|check)\b(.*)"
)


class Block(NamedTuple):
    """A block of code between two lines of ``` (fences).

    Attributes:
        language: `sh`, `python`, `text` and so on.
        reason: why the block does not run in the tests, or an empty text if it runs.
    """

    page: Path
    language: str
    text: str
    reason: str


class Program(NamedTuple):
    """A command line that starts one of this package's programs."""

    name: str
    flags: list[str]


def list_blocks(page: Path) -> list[Block]:
    """Return the blocks of a page that are between lines of ```, in their order."""
    found = MARKED_FENCE.findall(page.read_text(encoding="utf-8"))
    return [Block(page, language, text, reason) for reason, language, text in found]


def list_all_blocks() -> list[Block]:
    """Return the blocks of all pages, in their order."""
    return [block for page in PAGES for block in list_blocks(page)]


def list_commands(block: Block) -> list[str]:
    """Return the commands of an `sh` block, without comments. Lines after a backslash are joined into one command."""
    text = re.sub(r" *\\\n *", " ", block.text)
    lines = [line.partition("  #")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def list_distinct_commands(blocks: Iterable[Block]) -> list[str]:
    """Return the commands of some blocks in their order, each only once."""
    found = [command for block in blocks if block.language == "sh" for command in list_commands(block)]
    return list(dict.fromkeys(found))


def parse_program(command: str) -> Program | None:
    """Return the program that the command starts, with its flags, or None if it is not a program of this package."""
    found = PROGRAM.fullmatch(command)
    return Program(found[1], shlex.split(found[2])) if found else None


def list_indented_code(page: Path) -> list[str]:
    """Return the code blocks of a page that are only indented, without lines of ```. No test would run them."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.findall(r"^\n((?: {4}.*\n)+)", prose, re.MULTILINE)


def list_commands_in_text(page: Path) -> list[str]:
    """Return the commands in backticks in the text. If a benchmark is named without `python -m`, this is added."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    found = re.findall(r"`((?:python -m |make |lowlevel-simclr |bench\.[a-z])[^`]+)`", prose)
    return [" ".join(each.split()).replace("bench.", "python -m bench.", each.startswith("bench.")) for each in found]


def list_links(page: Path) -> list[str]:
    """Return the targets of links and images on a page, without other websites and headings of the page itself."""
    found = LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return [link for link in found if not link.startswith(("http", "#"))]
