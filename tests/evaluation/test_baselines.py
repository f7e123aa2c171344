"""Tests that the accuracies of an untrained encoder and of raw pixels (baselines) are measured once and then stored.

They must be measured again if the data, the encoder or the way to measure (protocol) has changed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lowlevel_simclr.data.dataset import UNLABELLED, DataSet, Split
from lowlevel_simclr.evaluation import baselines
from lowlevel_simclr.evaluation.baselines import Baseline, measure_baselines
from lowlevel_simclr.evaluation.represent import Represented, represent_pixels
from lowlevel_simclr.evaluation.summary import measure_frozen
from tests.support.labelled_images import make_striped_data_set, relabel
from tests.support.small_encoder import build_small_encoder

KEYS = {"knn_untrained", "linear_untrained", "knn_pixels", "linear_pixels", "notes"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the package store baselines below the test's folder, and also for small data sets.

    Return the folder in which it stores them. This folder does not exist before the first baseline.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(baselines.SWITCH, raising=False)
    monkeypatch.setattr(baselines, "KEPT_FROM", 90)
    return tmp_path / "cache" / "lowlevel_simclr" / "baselines"


def make_rows(images: DataSet) -> Represented:
    """Return a row of three numbers for each image: its label plus noise. So a classifier can learn a little."""
    random = np.random.default_rng(0)
    return Represented(
        *(
            split.labels[:, None] + random.standard_normal((len(split.labels), 3))
            for split in (images.train, images.test)
        )
    )


class Measured:
    """Measures the baselines. Counts how often the outputs of the untrained encoder have to be computed for this."""

    def __init__(self) -> None:
        self.computed, self.said = 0, []

    def __call__(
        self, images: DataSet, made_of: Any = "weights", protocols: tuple[str, ...] = ("knn", "linear")
    ) -> Any:
        def compute() -> Represented:
            self.computed += 1
            return make_rows(images)

        return measure_baselines(Baseline({"encoder": made_of}, compute), images, self.said.append, protocols)


def test_kept_baselines_are_those_that_were_measured(cache: Path) -> None:
    images, measured = make_striped_data_set(), Measured()
    first, again = measured(images), measured(images)
    rows = {"_untrained": make_rows(images), "_pixels": represent_pixels(images)}
    expected = measure_frozen(rows, images)
    assert first == again == {key: expected[key] for key in KEYS}
    assert 0.3 < first["linear_untrained"] < 1.0 == first["linear_pixels"]
    assert measured.computed == 1
    files = sorted(path.name.partition("-")[0] for path in cache.iterdir())
    assert files == ["lock", "pixels", "untrained"]
    assert measured.said[:4] == [
        "k-NN, untrained encoder ...",
        "linear probe, untrained encoder ...",
        "k-NN, pixels ...",
        "linear probe, pixels ...",
    ]
    assert [line.partition(" read from ")[0] for line in measured.said[4:]] == [
        "baseline, untrained encoder: measured by an earlier run,",
        "baseline, pixels: measured by an earlier run,",
    ]


def change_a_pixel(images: DataSet) -> DataSet:
    pixels = images.train.images.copy()
    pixels[1, 2, 3, 0] ^= 1
    return dataclasses.replace(images, train=Split(pixels, images.train.labels))


@pytest.mark.parametrize(
    "change",
    [
        lambda images: {"images": change_a_pixel(images)},
        lambda images: {"images": relabel(images, images.train.labels, (images.test.labels + 1) % 3)},
        lambda images: {"images": dataclasses.replace(images, record={"frames": {"shorter": 3, "longer": 5}})},
        lambda images: {"images": images, "made_of": "other weights"},
        lambda images: {"images": images, "protocols": ("knn",)},
    ],
    ids=["pixel", "label", "frames", "weights", "protocols"],
)
def test_anything_else_is_measured_anew(cache: Path, change: Callable[[DataSet], dict[str, Any]]) -> None:
    images, measured = make_striped_data_set(), Measured()
    measured(images)
    changed = change(images)
    found = measured(**changed)
    assert measured.computed == 2
    assert found == measured(**changed) and measured.computed == 2
    measured(images)
    assert measured.computed == 2  # the first stored entry is still used


def test_another_version_of_the_protocols_is_measured_anew(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, measured = make_striped_data_set(), Measured()
    measured(images)
    monkeypatch.setitem(baselines.PROTOCOL, "version", 0)
    measured(images)
    assert measured.computed == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("0.", "0.1", 1),
        lambda text: text[:-20],
        lambda text: "[]",
        lambda text: '{"checksum": 5}',
        lambda text: "[" * 100_000,
        lambda text: text.replace('"weights"', '"heavier"'),
    ],
    ids=["digit", "cut", "list", "incomplete", "deep", "made of"],
)
def test_a_damaged_entry_is_set_aside_and_measured_again(
    cache: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[str], str]
) -> None:
    images, measured = make_striped_data_set(), Measured()
    first = measured(images)
    (file,) = cache.glob("untrained-*.json")
    damaged = damage(file.read_text())
    assert damaged != file.read_text()
    file.write_text(damaged)
    assert measured(images) == first and measured.computed == 2
    assert file.with_name(file.name + ".damaged").read_text() == damaged
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{file.name} is damaged (" in line and f"set aside as {file.name}.damaged and is measured again." in line
    assert measured(images) == first and measured.computed == 2


def test_an_entry_under_another_name_is_not_used(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, measured = make_striped_data_set(), Measured()
    measured(images)
    (own,) = cache.glob("untrained-*.json")
    measured(images, "other weights")
    (other,) = (path for path in cache.glob("untrained-*.json") if path != own)
    own.write_text(other.read_text())
    measured(images)
    assert measured.computed == 3 and "it belongs to other data" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_costs_a_line_and_no_result(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.parent.parent.write_text("a file where the cache folder should be")
    images, measured = make_striped_data_set(), Measured()
    assert measured(images) == measured(images) and measured.computed == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines and all("could not be kept" in line or "cannot be read" in line for line in lines)
    assert "Set LOWLEVEL_SIMCLR_BASELINES=off to stop this." in lines[-1]


@pytest.mark.parametrize("why", ["off", "few images", "no home"])
def test_nothing_is_kept(cache: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    if why == "off":
        monkeypatch.setenv(baselines.SWITCH, "off")
    elif why == "few images":
        monkeypatch.setattr(baselines, "KEPT_FROM", 91)
    else:
        monkeypatch.setattr(baselines, "find_user_cache", lambda: None)
    images, measured = make_striped_data_set(), Measured()
    assert measured(images) == measured(images) and measured.computed == 2
    assert not cache.exists()


def test_an_unknown_word_for_the_switch_is_named(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(baselines.SWITCH, "never")
    assert baselines.choose_folder(make_striped_data_set()) == cache
    assert "LOWLEVEL_SIMCLR_BASELINES is 'never', which counts as on. Use on or off." in capsys.readouterr().err


def test_without_labels_nothing_is_computed(cache: Path) -> None:
    measured, images = Measured(), make_striped_data_set()
    assert measured(relabel(images, UNLABELLED, UNLABELLED)) == {}
    assert measured.computed == 0 and not cache.exists()


def test_without_an_untrained_encoder_pixels_remain(cache: Path) -> None:
    found = measure_baselines(None, make_striped_data_set(), lambda text: None)
    assert set(found) == KEYS - {"knn_untrained", "linear_untrained"}


def test_an_encoder_is_described_by_its_weights_and_its_transform() -> None:
    images = make_striped_data_set()
    small, other, large = build_small_encoder(), build_small_encoder(seed=5), build_small_encoder(size=12)
    one = baselines.describe_encoder(small, images)
    assert one == baselines.describe_encoder(small, images)
    assert json.loads(json.dumps(one)) == one
    assert baselines.describe_encoder(other, images)["encoder"][2] != one["encoder"][2]
    assert baselines.describe_encoder(large, images)["transform"] != one["transform"]
