"""Tests the measurement of the accuracy that an encoder loses when it is exported, for example to 8-bit numbers.

The accuracy of the exported file is measured on the outputs (h) that this file computes.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lowlevel_simclr.data.dataset import DataSet, Split
from lowlevel_simclr.evaluation.formats import accuracy_loss
from lowlevel_simclr.evaluation.formats.form import Format
from tests.support.exported import make_network

# Imitates an exported file that has lost all accuracy: its output h is the same for all images.
POOR = "def represent(given):\n    return {'h': np.ones((len(given), 3), np.float32)}\n"


def make_sample() -> DataSet:
    """Return a data set of dark images (class 0) and bright images (class 1), with noise."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = (labels[:, None, None, None] * 200 + random.integers(0, 50, (60, 8, 8, 3))).astype(np.uint8)
    return DataSet("drawn", Split(images[:40], labels[:40]), Split(images[40:], labels[40:]), ("black", "white"))


def test_both_accuracies_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network(monkeypatch, head=False)
    form = Format("Poor", (), "", "none", lambda *_: None, POOR, "")
    said = accuracy_loss.measure_accuracy_loss(network, form, tmp_path, "int8", make_sample())
    assert said == ("20-NN on 20 test images: accuracy 1.000 with the encoder of the run, 0.500 with int8 weights.")


def test_what_prevents_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network(monkeypatch, head=False)
    form = Format("Poor", (), "", "none", lambda *_: None, POOR, "")
    assert "no labels" in accuracy_loss.measure_accuracy_loss(network, form, tmp_path, "int8", None)
    fixed = dataclasses.replace(network, image_size=9)
    assert "not 9x9" in accuracy_loss.measure_accuracy_loss(fixed, form, tmp_path, "int8", make_sample())
