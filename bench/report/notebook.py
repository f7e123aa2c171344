"""Converts a page into a notebook: python -m bench.report.notebook docs/photographs.md.

From docs/photographs.md, the program writes docs/photographs.ipynb. The notebook has the text and the Python code of
the page, so only the page is edited by hand. The two differ in three ways:

- Where the page has a block of `sh`, the notebook has the Python code from the comment <!-- notebook ... --> before
  that block.
- The outputs on the page are left out, because running the notebook creates them.
- Text between <!-- page only --> and <!-- /page only --> is left out.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

LEFT_OUT = re.compile(r"<!-- (output|page only) -->\n.*?<!-- /\1 -->\n", re.DOTALL)
CODE = re.compile(
    r"^<!-- notebook\n(?P<instead>.*?)^-->\n+```sh\n.*?^```\n|^```(?P<language>python|sh)\n(?P<code>.*?)^```\n",
    re.DOTALL | re.MULTILINE,
)
NOTE = (
    "Run the cells from top to bottom. `python -m bench.report.notebook {page}` wrote this notebook; "
    "its source is [the page]({name})."
)


class Cell(NamedTuple):
    """A cell of a notebook. Its kind is "markdown" or "code"."""

    kind: str
    text: str


def split_page(text: str) -> list[Cell]:
    """Return the cells of a page, in order.

    Raises:
        ValueError: if a block of `sh` has no comment with Python code before it.
    """
    text = re.sub(r"\n{3,}", "\n\n", LEFT_OUT.sub("", text))
    cells, end = [], 0
    for found in CODE.finditer(text):
        if found["language"] == "sh":
            raise ValueError(
                "A block of sh needs Python code for the notebook. Write it in a comment <!-- notebook ... --> before "
                f"the block:\n{found['code']}"
            )
        cells.append(Cell("markdown", text[end : found.start()]))
        cells.append(Cell("code", found["instead"] or found["code"]))
        end = found.end()
    cells.append(Cell("markdown", text[end:]))
    return [Cell(kind, text.strip()) for kind, text in cells if text.strip()]


def add_note(cells: Sequence[Cell], page: str) -> list[Cell]:
    """Return the cells with a note under the title. The note names the page that the notebook was made from."""
    title, _, rest = cells[0].text.partition("\n")
    note = NOTE.format(page=page, name=Path(page).name)
    return [Cell("markdown", f"{title}\n\n{note}\n{rest}"), *cells[1:]]


def format_notebook(page: Path) -> str:
    """Return the notebook of a page as JSON, in version 4.5 of the notebook format, without outputs."""
    cells = add_note(split_page(page.read_text(encoding="utf-8")), f"{page.parent.name}/{page.name}")
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": [_format_cell(number, cell) for number, cell in enumerate(cells)],
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _format_cell(number: int, cell: Cell) -> dict[str, object]:
    """Return a cell in the notebook format, which stores the text as lines with their newlines."""
    lines = cell.text.splitlines(keepends=True)
    shared: dict[str, object] = {"cell_type": cell.kind, "id": f"cell-{number}", "metadata": {}}
    return {**shared, **({"execution_count": None, "outputs": []} if cell.kind == "code" else {}), "source": lines}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the notebook into the folder of its page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    page = parser.parse_args(arguments).page
    page.with_suffix(".ipynb").write_text(format_notebook(page), encoding="utf-8")


if __name__ == "__main__":
    main()
