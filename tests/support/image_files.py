"""Writes folders of small numbered pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lowlevel_simclr.config.identity import to_dict
from lowlevel_simclr.config.settings import Config


def draw_picture(number: int, height: int = 16, width: int = 16) -> Image.Image:
    """Return a picture that differs for each number.

    The value of its first pixel is the number, which a lossless file format keeps.
    """
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
    pixels[0, 0] = number
    return Image.fromarray(pixels)


def write_pictures(root: Path, *paths: str, **options: Any) -> Path:
    """Write an image file to each path. The file at position n of `paths` has picture n. Return the folder."""
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        draw_picture(number, **options).save(root / path)
    return root


def make_names(folder: str, count: int, ending: str = "png") -> list[str]:
    """Return the paths of `count` files in a folder, named 00.png, 01.png and so on."""
    return [f"{folder}/{number:02d}.{ending}" for number in range(count)]


def make_run_folder(folder: Path) -> Path:
    """Write config.json and two pictures, as a run has them. Return the folder."""
    write_pictures(folder, "plots/views.png", "plots/learning.png")
    (folder / "config.json").write_text(json.dumps(to_dict(Config())))
    return folder
