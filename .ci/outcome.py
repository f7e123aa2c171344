"""Checks a short training run by the files in its folder: it must have learned something and drawn its pictures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

PLOTS = ("views.png", "learning.png", "embedding.png", "neighbours.png")


def main(folder: Path) -> None:
    """Check the run folder, and print the accuracy of the trained and of the untrained encoder.

    Raises:
        AssertionError: if the folder lacks a result or a picture, or if the run learned nothing. The message says what
            is wrong.
    """
    evaluation = json.loads((folder / "evaluation.json").read_text())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 61)), "metrics.jsonl does not have one row for each step"
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5, f"the loss did not fall: {rows[0]['loss']} -> {rows[-1]['loss']}"
    knn, untrained = evaluation["knn"]["20"], evaluation["knn_untrained"]["20"]
    assert knn > untrained, f"k-NN {knn} is not above the untrained encoder's {untrained}"
    missing = [name for name in PLOTS if not (folder / "plots" / name).stat().st_size]
    assert not missing, missing
    print(f"outcome: k-NN {knn:.3f} against {untrained:.3f} untrained; all pictures drawn")


main(Path(sys.argv[1]))
