"""Makes a progress bar print a line at every update, so that a test need not wait for a line."""

from __future__ import annotations

import pytest

from lowlevel_simclr.runtime import progress_bar


def print_every_line(patch: pytest.MonkeyPatch) -> None:
    """Print a progress line at every update, even if the work is short."""
    patch.setattr(progress_bar, "LINE_EVERY", 0.0)
    # In only some updates, tqdm checks whether it is time for a new line. The replacement prints in each update.
    patch.setattr(progress_bar.ProgressLines, "update", _update_and_show)


def _update_and_show(bar: progress_bar.ProgressLines, count: int = 1) -> None:
    bar.n += count
    bar.refresh()
