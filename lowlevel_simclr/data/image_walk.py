"""Finds the image files below a folder. Training, evaluation and `embed` use this search, so they find the same files.

Links are followed, and each folder is entered once. Hidden files and folders are ignored. The pictures of a run are
never data, so run folders are not entered. Folders that cannot be listed, and images of kinds that cannot be read, are
returned with the reason.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lowlevel_simclr.data.image_file import EXTRA_FORMATS
from lowlevel_simclr.runtime.files import read_regular_file

USUAL_ENDINGS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .jp2 .j2k .j2c .jpf .jpx .ppm .pgm .pbm .pnm".split()
)
ENDINGS = USUAL_ENDINGS.union(*EXTRA_FORMATS.values())
# The endings of images that this installation of Pillow cannot read, and of raw camera files, whose pixels need
# processing first.
OTHER_IMAGES = frozenset(
    ".heic .heif .avif .jxl .svg .svgz .psd .xcf .ico .tga .exr .hdr .dds .eps .ai .raw .dng .cr2 .cr3 .nef .arw .orf "
    ".rw2 .raf .dcm".split()
).difference(ENDINGS)
LARGEST_CONFIG = 2**20  # bytes of a config.json; the config.json of a run has two thousand
RUN = "a run folder, whose pictures are not data"  # the reason why a run folder is left out
_RUN_SECTIONS = ("data", "model", "train")  # every version writes these sections into the config.json of a run
_PREVIEW = ("plots", {"views.png", "views.svg"})  # the folder and the files that --preview writes


class FoundFiles(NamedTuple):
    """The files below a folder. Paths are relative to the folder, separated by `/`, and sorted."""

    images: tuple[str, ...]
    others: tuple[str, ...]  # files without the ending of an image
    left_out: dict[str, str]  # path -> reason: RUN, a folder that cannot be listed, or a kind that cannot be read


def find_image_files(root: Path, own: Path | None = None) -> FoundFiles:
    """Find the image files below a folder by their endings. No image is opened.

    Args:
        root: the folder.
        own: the folder of the run that looks for its images. It need not exist. It is left out like any run folder.

    Returns:
        The files, and what was left out.
    """
    images: list[str] = []
    others: list[str] = []
    left_out: dict[str, str] = {}

    def note_problem(error: OSError) -> None:
        left_out[_make_relative(error.filename, root) + "/"] = f"cannot be listed: {error.strerror}"

    for folder, folders, files in _walk(root, note_problem):
        inside = _make_relative(folder, root)
        if _is_run(folder, folders, files, own):
            folders.clear()
            left_out[inside + "/"] = RUN
            continue
        for name in files:
            path = name if inside == "." else f"{inside}/{name}"
            ending = os.path.splitext(name)[1].lower()
            if ending in OTHER_IMAGES:
                left_out[path] = f"{ending[1:].upper()} images are not read"
                continue
            (images if ending in ENDINGS else others).append(path)
    return FoundFiles(tuple(sorted(images)), tuple(sorted(others)), dict(sorted(left_out.items())))


def _walk(root: Path, note_problem: Callable[[OSError], object]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield each folder once, with its subfolders and files that are not hidden, as `os.walk` does.

    The caller may remove subfolders from the list. They are then not entered.
    """
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=note_problem):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder that was visited before
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield folder, folders, [name for name in files if not name.startswith(".")]


def _make_relative(folder: str, root: Path) -> str:
    return os.path.relpath(folder, root).replace(os.sep, "/")


def _is_run(folder: str, folders: Sequence[str], files: Sequence[str], own: Path | None) -> bool:
    """Return whether a folder is `own`, has the config.json of a run, or has only the pictures of --preview."""
    if own is not None and os.path.realpath(folder) == os.path.realpath(own):
        return True
    if "config.json" in files:
        return _is_run_config(Path(folder, "config.json"))
    if files or list(folders) != [_PREVIEW[0]]:
        return False
    try:
        return set() < set(os.listdir(Path(folder, _PREVIEW[0]))) <= _PREVIEW[1]
    except OSError:
        return False


def _is_run_config(path: Path) -> bool:
    """Return whether a file is the config.json of a run, written by any version of this package."""
    try:
        found = json.loads(read_regular_file(path, LARGEST_CONFIG, "LARGEST_CONFIG"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and all(isinstance(found.get(section), dict) for section in _RUN_SECTIONS)
