"""Keeps the results of one evaluation while it runs: in memory, and in a file if the file can be written."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lowlevel_simclr.run import results
from lowlevel_simclr.run.atomic import NotWritten


class Record:
    """The results so far of an evaluation of the encoder after a certain training step."""

    def __init__(self, folder: Path, step: int, out: Path | None = None) -> None:
        """Check that the file can be written, before anything is measured.

        If the run's own file cannot be written, a warning is printed and the evaluation continues, because the results
        are printed too.

        Args:
            folder: the run folder.
            step: the number of steps that the encoder was trained.
            out: the file for the results. None means the run's evaluation.json.

        Raises:
            RunError: if `out` is given and cannot be written.
        """
        self.path, self._step = out or folder / results.EVALUATION, step
        self._found: dict[str, Any] = {"step": step}
        self._writable = True
        error = results.find_write_error(self.path.parent)
        if error is not None and out is not None:
            raise error
        if error is not None:
            self._give_up(error)

    def add(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Add results. Return all results for this step, see `merge_evaluation`.

        Raises:
            RunError: if the file has results of a later step.
        """
        self._found = results.merge(self._found, found)
        if self._writable:
            try:
                self._found = results.merge_evaluation(self.path, self._step, self._found)
            except NotWritten as error:
                self._give_up(error)
        return self._found

    def _give_up(self, error: NotWritten) -> None:
        """Print a warning. From now on, keep the results only in memory."""
        self._writable = False
        print(f"warning: {error} The results are only printed. --out keeps them in another file.", file=sys.stderr)
