"""Writes the folder of a finished run with made-up results, without training."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lowlevel_simclr.config.identity import replace, to_dict
from lowlevel_simclr.config.presets import load_preset
from lowlevel_simclr.evaluation.report.kept import KEPT, ReportMap, keep_for_report

EVALUATION = {
    "schema": 1,
    "step": 40,
    "train_on": "train",
    "knn": {"20": 0.91, "200": 0.82},
    "knn_untrained": {"20": 0.41, "200": 0.32},
    "knn_pixels": {"20": 0.21, "200": 0.12},
    "linear": 0.93,
    "linear_augmented": 0.94,
    "seeds": {"linear_augmented": {"mean": 0.94, "std": 0.01, "n": 3}},
    "transform": "32x32 resized to 20x20",
    "notes": {"linear": "not <converged>"},
}


def write_finished_run(
    folder: Path, classes: tuple[str, ...] = ("cat", "dog"), evaluation: dict[str, Any] | None = None, **settings: Any
) -> Path:
    """Write the files that a report reads. Return the folder."""
    (folder / "plots").mkdir(parents=True)
    config = to_dict(replace(load_preset("shapes"), **settings))
    rows: list[dict[str, Any]] = [
        {"step": step, "loss": 5 / step, "top1": 1 - 1 / step, "learning_rate": 0.1, "pairs_per_second": 100.0}
        for step in range(1, 41)
    ]
    rows[19]["knn"], rows[39]["knn"] = 0.5, 0.9
    counts = {"train": 60, "test": 40, "skipped": 1}
    data = {"dataset": "shapes", "counts": counts, "classes": list(classes), "shape": [8, 8, 3]}
    environment = {
        "command": "python -m lowlevel_simclr.train",
        "steps": 40,
        "tensorflow": "2.21.0",
        "precision": "float32",
    }
    environment |= {
        "cpu": {"model": "Zen 5", "cores": 2},
        "gpus": [],
        "peak_memory_bytes": {"host": 2_000_000_000, "gpu": None},
    }
    files = {
        "config": config,
        "environment": environment,
        "data": {**data, "skipped": [{"path": "a.png", "reason": "truncated"}]},
        "evaluation": EVALUATION if evaluation is None else evaluation,
    }
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(buffer, "png")
    for name in ("views", "embedding", "neighbours"):
        (folder / "plots" / f"{name}.png").write_bytes(buffer.getvalue())
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    labels = np.arange(12) % len(classes) if classes else np.full(12, -1)
    mapped = ReportMap(np.random.default_rng(1).normal(size=(12, 2)), images, labels, classes)
    keep_for_report(folder / "plots" / KEPT, 5.54, {"pixels": 0.21, "untrained encoder": 0.41}, mapped)
    return folder
