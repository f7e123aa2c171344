"""Tests training with --micro-batch auto, which searches for the largest part of a batch that fits into the memory.

A run must keep the number that the search found. A preview, which only draws a picture, must not search.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lowlevel_simclr import train
from lowlevel_simclr.api import session
from lowlevel_simclr.training.session import Session
from tests.support.made_up_memory import limit_memory, pretend_gpu
from tests.support.small_runs import draw_few_shapes, narrow_resnet20

# Stock ops (built from TensorFlow's own) are used, because native ops on a GPU need TensorFlow 2.18 or later.
STOCK = ["--ops", "stock"]


@pytest.fixture(autouse=True)
def small_runs_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make training take seconds, and pretend that this machine has a GPU."""
    draw_few_shapes(monkeypatch)
    narrow_resnet20(monkeypatch)
    pretend_gpu(monkeypatch)


def test_a_run_keeps_the_number_that_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test a run that resumes with less free memory. It must keep the number that it found at its start."""
    flags = ["--image-size", "8", "--batch-size", "16", "--projection-widths", "8", "--knn-every", "0"]
    flags += ["--warmup-epochs", "0", "--out", str(tmp_path / "run"), "--micro-batch", "auto", "--steps", "2"]
    flags += ["--xla", "off", "--data-on", "host", *STOCK]
    monkeypatch.setattr(Session, "finish", lambda session: session.train())  # without the evaluation and the pictures
    monkeypatch.setattr(session, "fits_memory", limit_memory(8, []))
    assert train.main(flags) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["micro_batch"] == "8"
    monkeypatch.setattr(session, "fits_memory", lambda *_: pytest.fail("the run searched again"))
    assert train.main(flags) == 0


def test_a_picture_of_views_tries_nothing_and_refuses_what_a_run_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "fits_memory", lambda *_: pytest.fail("the preview searched"))
    flags = ["--image-size", "8", "--batch-size", "16", "--xla", "off", "--data-on", "host", "--preview", *STOCK]
    assert train.main([*flags, "--micro-batch", "auto", "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "plots" / "views.png").is_file()
    flags += ["--batch-norm", "ghost", "--ghost-batch", "5", "--out", str(tmp_path / "other")]
    assert train.main(flags) == 1 and "--ghost-batch (5) does not divide" in capsys.readouterr().err
