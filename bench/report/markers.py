"""Writes a table into a page, between the two markers of the table: <!-- NAME --> and <!-- /NAME -->."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]


def list_pages(root: Path = ROOT) -> list[Path]:
    """Return the paths of the README and of every page of the site."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def find_page(name: str, pages: Iterable[Path]) -> Path:
    """Return the page that has the markers with this name.

    Raises:
        ValueError: if no page or more than one page has the markers.
    """
    found = [page for page in pages if page.exists() and f"<!-- {name} -->" in page.read_text(encoding="utf-8")]
    if len(found) != 1:
        where = ", ".join(str(page) for page in found) or "no page"
        raise ValueError(f"The marker <!-- {name} --> is in {where}. It must be in exactly one page.")
    return found[0]


def write_between(page: Path, name: str, text: str) -> None:
    """Replace the text between the two markers with this name.

    Args:
        page: the path of a Markdown file.
        name: the name of the markers, for example bench:nt_xent for <!-- bench:nt_xent -->.
        text: the new text, without a newline at its end.

    Raises:
        ValueError: if the page does not have these markers.
    """
    pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
    old = page.read_text(encoding="utf-8")
    if not pattern.search(old):
        raise ValueError(f"{page} does not have the markers <!-- {name} --> and <!-- /{name} -->. Add them.")
    page.write_text(pattern.sub(lambda found: f"{found[1]}{text}\n{found[2]}", old), encoding="utf-8")
