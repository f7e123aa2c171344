"""Writes an export into a temporary folder, checks the files, and then gives the folder its final name."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from lowlevel_simclr.evaluation.formats.form import ExportError, Format
from lowlevel_simclr.evaluation.formats.network import Network
from lowlevel_simclr.evaluation.formats.parity import Parity, measure_parity
from lowlevel_simclr.evaluation.formats.to_keras import KERAS
from lowlevel_simclr.evaluation.formats.to_litert import LITERT
from lowlevel_simclr.evaluation.formats.to_onnx import ONNX
from lowlevel_simclr.evaluation.formats.to_pytorch import PYTORCH
from lowlevel_simclr.evaluation.formats.to_saved_model import SAVED_MODEL
from lowlevel_simclr.run.atomic import explain_os_errors

FORMATS = {"keras": KERAS, "saved_model": SAVED_MODEL, "onnx": ONNX, "litert": LITERT, "pytorch": PYTORCH}
CARD = "README.md"


def refuse_early(name: str, out: Path) -> None:
    """Check, before long work, that the packages of a format are installed and that its folder is free.

    Raises:
        ExportError: if a package is missing or the folder is not free. The message says what to do.
    """
    form = FORMATS[name]
    missing = [module for module in form.modules if importlib.util.find_spec(module) is None]
    if missing:
        raise ExportError(
            f"The format {name} is written and checked with {' and '.join(missing)}, which Python does not find. Run "
            f"'pip install {form.install}'."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} exists already. Remove it, or choose another folder with --out.")


def write_export(
    network: Network, name: str, out: Path, weights: str, make_card: Callable[[Format, Path, Parity], str]
) -> Parity:
    """Write a network in a format, check that the files compute the same outputs, and write the README.md.

    Args:
        network: what is exported.
        name: the name of the format.
        out: the folder for the files. It must be empty or not exist yet.
        weights: the number type of the weights.
        make_card: returns the text of README.md, given the format, the folder with the files and the `Parity`.

    Raises:
        ExportError: if a package is missing, if the folder is not free, or if the files compute other outputs than the
            network. In each case, nothing is written.
        NotWritten: if a file cannot be written.
    """
    refuse_early(name, out)
    form = FORMATS[name]
    unfinished = out.absolute().with_name(f".unfinished-{out.name}-{os.getpid()}")
    with explain_os_errors("export into", out):
        unfinished.mkdir(parents=True)
        try:
            # Some libraries cannot open a file if a name in its path is not UTF-8. The temporary folder has a plain
            # name.
            with tempfile.TemporaryDirectory() as temporary:
                place = Path(temporary)
                form.write(network, place, weights)
                parity = measure_parity(network, form, place, weights)
                (place / CARD).write_text(make_card(form, place, parity), encoding="utf-8")
                shutil.copytree(place, unfinished, dirs_exist_ok=True)
            os.replace(unfinished, out)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return parity
