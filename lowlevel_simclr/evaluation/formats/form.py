"""The description of an export format, and the error that a failed export raises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lowlevel_simclr.config.names import OneLineError
from lowlevel_simclr.evaluation.formats.network import Network


class ExportError(OneLineError, RuntimeError):
    """The export failed, or the exported file computes other outputs than the encoder. The message says what to do."""


class Format(NamedTuple):
    """A file format for other programs, and how to write, check and load such files.

    Attributes:
        title: the name of the format, for the README.md of the export.
        modules: the modules that writing and reading the format needs besides TensorFlow.
        install: the package names to give to `pip install` for these modules.
        library: the name of the library in Hugging Face's front matter.
        write: function that writes the files. It is called with the network, the folder and the number type of the
            weights.
        reader: Python code that defines a function `represent(given)`. It takes an array of images and returns a dict
            with the encoder's outputs "h" (n, d), and "z" if the file has the projection head. The code finds the
            folder in `sys.argv[1]`. It runs in a process that cannot import this package.
        example: Python code that shows users how to load the files.
    """

    title: str
    modules: tuple[str, ...]
    install: str
    library: str
    write: Callable[[Network, Path, str], None]
    reader: str
    example: str
