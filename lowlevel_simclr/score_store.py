"""Accuracies of trainings with labels, kept in the run folder as they are measured: scores.json.

Each takes minutes to hours, so an evaluation that was stopped goes on with those that are missing. An entry says what
it was made of: the weights (SHA-256), the configuration, the images and the recipe. It is used again only where all of
that is the same; otherwise it is measured anew and replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lowlevel_simclr import runlog

FILE = "scores.json"


class ScoreStore:
    """The accuracies of one protocol, made of one encoder, one set of images and one recipe."""

    def __init__(self, folder: Path, protocol: str, made_of: Mapping[str, Any]) -> None:
        """Opens the store of a run; nothing is read or written yet.

        Args:
            folder: of the run.
            protocol: a word for what was trained, "finetune" for one.
            made_of: all that an accuracy depends on and that is the same for all of them; as JSON has it.
        """
        self.path, self.protocol, self.made_of = folder / FILE, protocol, dict(made_of)

    def get(self, seed: int, fraction: float = 1.0) -> float | None:
        """The accuracy in [0, 1] that was measured, or None.

        Raises:
            runlog.RunError: the file is not JSON.
        """
        entry = runlog.read_results(self.path).get(self._name(seed, fraction))
        return entry["accuracy"] if entry and entry["made_of"] == self.made_of else None

    def put(self, accuracy: float, seed: int, fraction: float = 1.0) -> None:
        """Keeps an accuracy in [0, 1] of a training with a seed on a fraction of the labels.

        Raises:
            runlog.RunError: the file is not JSON, or cannot be written.
        """
        runlog.merge_results(self.path, {self._name(seed, fraction): {"made_of": self.made_of, "accuracy": accuracy}})

    def _name(self, seed: int, fraction: float) -> str:
        return f"{self.protocol}, {fraction:g} of the labels, seed {seed}"
