"""What a format is, and the error of an export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lowlevel_simclr.config.names import OneLineError
from lowlevel_simclr.evaluation.formats.network import Network


class ExportError(OneLineError, RuntimeError):
    """The encoder cannot be exported, or the file gives another h. The message says why and what to do."""


class Format(NamedTuple):
    """A format of files for other programs.

    Attributes:
        title: the name of the format, for the card.
        modules: the modules that writing and reading it needs beside TensorFlow.
        install: what `pip install` takes for them.
        library: the library in the form of Hugging Face.
        write: writes the files into a folder: (network, folder, number type of the weights).
        reader: a Python program's definition of `represent(given)`, from an array to {"h": (n, d), ...}. It finds the
            folder in `sys.argv[1]`. It runs where this package cannot be imported.
        example: how a person loads the files, as Python code.
    """

    title: str
    modules: tuple[str, ...]
    install: str
    library: str
    write: Callable[[Network, Path, str], None]
    reader: str
    example: str
