"""The README and the pages of the site: their blocks, commands and links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!`)\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block: `sh`, `python`, `text` and so on."""

    page: Path
    language: str
    text: str


def list_blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return [Block(page, language, text) for language, text in FENCE.findall(page.read_text(encoding="utf-8"))]


def list_commands(block: Block) -> list[str]:
    """Return the commands of a block of `sh`, without comments. A line that ends with a backslash goes on."""
    text = re.sub(r" *\\\n *", " ", block.text)
    lines = [line.partition("  #")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def list_all_commands() -> list[str]:
    """Return every command of every page once, in order."""
    blocks = [block for page in PAGES for block in list_blocks(page) if block.language == "sh"]
    return list(dict.fromkeys(command for block in blocks for command in list_commands(block)))


def list_links(page: Path) -> list[str]:
    """Return what a page links to and shows, without the addresses of other sites and anchors in the page itself."""
    found = LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return [link for link in found if not link.startswith(("http", "#"))]
