"""The work of `python -m lowlevel_simclr.report`: it writes the report of one run, or compares several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.evaluation.report.page import write_comparison, write_run_report

COMPARISON = Path("comparison.html")


def write_report(folders: Sequence[Path], out: Path | None = None) -> str:
    """Write the report of one run, or the comparison of several runs. Return its path as one printable line.

    Args:
        folders: the run folders, at least one.
        out: the file to write. None: report.html in the folder of the run or, for several runs, comparison.html.

    Raises:
        RunError: if a folder holds no run, or the file cannot be written.
    """
    if len(folders) == 1:
        return show_name(write_run_report(folders[0], out))
    return show_name(write_comparison(folders, out or COMPARISON))
