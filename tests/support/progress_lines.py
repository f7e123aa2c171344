"""Prints a progress line at every update of a bar, so that a test need not wait."""

from __future__ import annotations

import pytest

from lowlevel_simclr.runtime import progress_bar


def print_every_line(patch: pytest.MonkeyPatch) -> None:
    """Print a line at every update of the progress, even if the work is short."""
    patch.setattr(progress_bar, "LINE_EVERY", 0.0)
    # tqdm does not look at the time at every update.
    patch.setattr(progress_bar.ProgressLines, "update", _update_and_show)


def _update_and_show(bar: progress_bar.ProgressLines, count: int = 1) -> None:
    bar.n += count
    bar.refresh()
