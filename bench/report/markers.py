"""Writes a table between two markers of a page: <!-- NAME --> and <!-- /NAME -->."""

from __future__ import annotations

import re
from pathlib import Path


def write_between(page: Path, name: str, text: str) -> None:
    """Replace what stands between the markers of a name.

    Args:
        page: a Markdown file.
        name: of the markers, as in <!-- bench:nt_xent -->.
        text: what is to stand there, without a newline at its end.

    Raises:
        ValueError: the page has no such markers.
    """
    pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
    old = page.read_text(encoding="utf-8")
    if not pattern.search(old):
        raise ValueError(f"{page} has no markers <!-- {name} --> and <!-- /{name} -->")
    page.write_text(pattern.sub(lambda found: f"{found[1]}{text}\n{found[2]}", old), encoding="utf-8")
