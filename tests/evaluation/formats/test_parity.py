"""Tests the check after an export, which compares the outputs h of the exported file with those of the encoder.

It must notice wrong outputs and failures.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.evaluation.formats import parity
from lowlevel_simclr.evaluation.formats.form import ExportError, Format
from lowlevel_simclr.evaluation.formats.network import compute_reference
from tests.support.exported import make_network

# Imitates the program that runs an exported file. Its results are stored outputs h, multiplied by a factor. It fails if
# it can import this package, because the users of an exported file do not have this package.
ANSWERS = """
answers = np.load(sys.argv[1] + "/answers.npz")
try:
    import lowlevel_simclr
    raise SystemExit("this package was found")
except ImportError:
    pass

def represent(given):
    name = "images0" if given.shape[1] == 8 else "images1"
    return {"h": answers[name] * np.float32(%s)}
"""


def make_format(factor: str) -> Format:
    return Format("Known", (), "", "none", lambda *_: None, ANSWERS % factor, "")


def measure(folder: Path, patch: pytest.MonkeyPatch, factor: str) -> parity.Parity:
    given = make_network(patch, head=False)
    images = parity.draw_images(given)
    assert sum(map(len, images.values())) == parity.COUNT and {each.dtype for each in images.values()} == {
        np.dtype("u1")
    }
    np.savez(folder / "answers.npz", **{name: compute_reference(given, each)["h"] for name, each in images.items()})
    return parity.measure_parity(given, make_format(factor), folder, "float32")


def test_the_same_h_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure(tmp_path, monkeypatch, "1.000001")
    assert 5e-7 < found.largest["h"] < 2e-6 and found.bound == 1e-5
    assert found.describe().startswith("largest difference on 64 images (8x8 and 17x11 pixels), relative to")


@pytest.mark.parametrize("factor", ["1.0001", "'nan'", "np.ones((2, 1))"])
def test_another_h_is_refused(factor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExportError, match="Known file does not give the h of the run|exit code 1"):
        measure(tmp_path, monkeypatch, factor)


def test_a_runtime_that_fails_is_named_with_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ExportError, match=r"runtime of Known cannot use the file .*exit code 1\): NameError: .*nothing"
    ):
        measure(tmp_path, monkeypatch, "nothing")
