"""The description of an export format, and the error of an export."""

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
        title: the name of the format, for the README.md of the export.
        modules: the modules that writing and reading the format needs besides TensorFlow.
        install: the arguments of `pip install` for these modules.
        library: the name of the library in Hugging Face's front matter.
        write: writes the files into a folder: (network, folder, number type of the weights).
        reader: Python code that defines `represent(given)`, from an array to {"h": (n, d), ...}. The code finds the
            folder in `sys.argv[1]`. It runs in a process that cannot import this package.
        example: how a person loads the files, as Python code.
    """

    title: str
    modules: tuple[str, ...]
    install: str
    library: str
    write: Callable[[Network, Path, str], None]
    reader: str
    example: str
