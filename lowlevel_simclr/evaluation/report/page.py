"""Builds the HTML page of a report from its sections, and writes it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import lowlevel_simclr
from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.evaluation.report import comparison, markup, sections
from lowlevel_simclr.evaluation.report.facts import read_facts
from lowlevel_simclr.evaluation.report.script import SCRIPT
from lowlevel_simclr.evaluation.report.style import write_style
from lowlevel_simclr.run.atomic import RunError, explain_os_errors
from lowlevel_simclr.runtime.files import write_atomically

REPORT = "report.html"
# With this policy the browser refuses every address, so a page cannot load anything from the internet.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
Given = TypeVar("Given")


def write_run_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report of one run. Return its path.

    Args:
        folder: the run folder.
        out: the file to write. None: report.html in the run folder.

    Raises:
        RunError: if the folder holds no run, or the file cannot be written.
    """
    facts = read_facts(folder)
    return _write(out or folder / REPORT, make_page(f"Run {facts.name}", sections.SECTIONS, facts))


def write_comparison(folders: Sequence[Path], out: Path) -> Path:
    """Write the comparison of several runs. Return its path.

    Raises:
        RunError: if a folder holds no run, or the file cannot be written.
    """
    every = comparison.name_runs([read_facts(folder) for folder in folders])
    return _write(out, make_page(f"{len(every)} runs compared", comparison.SECTIONS, every))


def write_report_or_warn(folder: Path) -> None:
    """Write the report of a run. If that fails, only print a warning, because a report must never end a run."""
    try:
        write_run_report(folder)
    except Exception as error:  # noqa: BLE001, a mistake in a report must not end the run
        reason = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
        print(f"warning: {REPORT} was not written. {show_name(reason)}", file=sys.stderr)


def make_page(title: str, parts: Mapping[str, Callable[[Given], str]], given: Given) -> str:
    """Return a page as HTML.

    Args:
        title: the title of the page.
        parts: a dict from names to the functions that write the sections. If a function fails, the page has a sentence
            about that in place of the section.
        given: the argument of these functions.
    """
    body = "".join(_write_part(name, write, given) for name, write in parts.items())
    version = markup.write_paragraph(f"Written by lowlevel_simclr {lowlevel_simclr.__version__}.", "muted")
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{markup.escape(title)}</title><style>{write_style()}</style></head>"
        f"<body><main><h1>{markup.escape(title)}</h1>{body}<footer>{version}</footer></main>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _write_part(name: str, write: Callable[[Given], str], given: Given) -> str:
    """Return a section, or a sentence with the reason if it cannot be written."""
    try:
        return write(given)
    except Exception as error:  # noqa: BLE001, values of damaged files have any type
        return markup.write_paragraph(f"The section '{name}' is missing ({type(error).__name__}: {error}).", "warning")


def _write(path: Path, page: str) -> Path:
    with explain_os_errors("write the report", path.parent):
        write_atomically(path, lambda file: file.write(page.encode("utf-8")))
    return path
