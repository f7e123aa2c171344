"""Writes and reads the values that only the report of a run needs.

Training writes them to plots/report.json: the chance level of the loss (its value if the encoder cannot tell views
apart), the baselines of the k-NN curve, the points of the map of h (t-SNE of the encoder's outputs), and small copies
of the images of these points.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from lowlevel_simclr.config.names import show_name
from lowlevel_simclr.run.results import read_results
from lowlevel_simclr.runtime.files import write_atomically

KEPT = "report.json"  # in the folder plots/ of the run
THUMBNAIL = 32  # pixels a side
COLUMNS = 32  # thumbnails in a row of the picture that holds all of them
QUALITY = 80  # JPEG quality; a thousand thumbnails take about half a megabyte


class ReportMap(NamedTuple):
    """The map of h.

    Attributes:
        points: (n, 2) in an arbitrary unit, or None if the map could not be drawn.
        images: (n, H, W, C) uint8.
        labels: (n,) class numbers. A negative number means that there is no label.
        classes: the name of each class number.
    """

    points: np.ndarray | None
    images: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]


def keep_for_report(path: Path, chance: float, baselines: Mapping[str, float], mapped: ReportMap) -> None:
    """Write plots/report.json.

    Args:
        path: plots/report.json of a run.
        chance: the loss of an encoder that cannot tell views apart.
        baselines: a dict from names to k-NN accuracies in [0, 1], for pixels and for the untrained encoder.
        mapped: the map of h.

    Raises:
        OSError: if the file cannot be written.
    """
    kept: dict[str, Any] = {"chance_loss": chance, "knn_baselines": dict(baselines)}
    if mapped.points is not None:
        kept["map"] = {
            "points": np.round(scale_points(mapped.points), 4).tolist(),
            "labels": mapped.labels.tolist(),
            "classes": [show_name(name) for name in mapped.classes],
            "thumbnails": base64.b64encode(draw_thumbnails(mapped.images)).decode(),
        }
    text = json.dumps(kept, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(text.encode()))


def read_kept(folder: Path) -> dict[str, Any]:
    """Return the contents of plots/report.json, or {} if there is no such file.

    Raises:
        RunError: if the file is not JSON.
    """
    return read_results(folder / "plots" / KEPT)


def scale_points(points: np.ndarray) -> np.ndarray:
    """Return points (n, 2) moved and scaled into the unit square, by the same factor in both directions.

    Example:
        >>> scale_points(np.array([[0.0, 0.0], [4.0, 2.0]])).tolist()
        [[0.0, 0.25], [1.0, 0.75]]
    """
    low, high = points.min(axis=0), points.max(axis=0)
    extent = (high - low).max()
    return 0.5 + (points - (low + high) / 2) / (extent if extent > 0 else 1)


def draw_thumbnails(images: np.ndarray) -> bytes:
    """Return images (n, H, W, C) uint8 as one JPEG picture, in rows of COLUMNS."""
    rows = -(-len(images) // COLUMNS)
    picture = Image.new("RGB", (COLUMNS * THUMBNAIL, max(1, rows) * THUMBNAIL), "white")
    for number, image in enumerate(images):
        colours = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]
        colours = np.pad(colours, [(0, 0), (0, 0), (0, 3 - colours.shape[-1])])  # two channels: red and green
        small = Image.fromarray(colours).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
        picture.paste(small, (number % COLUMNS * THUMBNAIL, number // COLUMNS * THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=QUALITY)
    return buffer.getvalue()
