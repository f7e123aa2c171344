"""Tests the results of an evaluation: the file evaluation.json, and the table that is printed from it.

They compare the trained encoder with an untrained encoder and with raw pixels.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from lowlevel_simclr.data import dataset
from lowlevel_simclr.evaluation import knn, linear_probe, represent, summary
from tests.support.labelled_images import make_striped_data_set, relabel
from tests.support.small_encoder import build_small_encoder

# evaluation.json


def three_kinds(images: dataset.DataSet) -> dict[str, represent.Represented]:
    trained, untrained = build_small_encoder(seed=1), build_small_encoder(seed=2)
    return {
        "": represent.represent_splits(trained, images),
        "_untrained": represent.represent_splits(untrained, images),
        "_pixels": represent.represent_pixels(images),
    }


def test_an_evaluation_has_the_keys_of_its_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "KNN_COUNTS", (5, 20))
    images, said = make_striped_data_set(), []
    found = summary.measure_frozen(three_kinds(images), images, train_on="all", say=said.append)
    kinds = ("", "_untrained", "_pixels")
    assert set(found) == {"schema", "train_on", *(f"knn{kind}" for kind in kinds), *(f"linear{kind}" for kind in kinds)}
    assert (found["schema"], found["train_on"]) == (1, "all")
    for kind in kinds:
        assert set(found["knn" + kind]) == {"5", "20"}
        assert all(0 <= value <= 1 for value in [*found["knn" + kind].values(), found["linear" + kind]])
    assert found["knn_pixels"]["5"] == 1.0
    assert found["linear_pixels"] == 1.0
    assert json.loads(json.dumps(found)) == found
    spoken = ("trained encoder", "untrained encoder", "pixels")
    assert said == [f"{what}, {kind} ..." for what in ("k-NN", "linear probe") for kind in spoken]


def test_rows_are_compared_with_their_own_labels() -> None:
    images = make_striped_data_set()
    wrong = relabel(images, images.train.labels, (images.test.labels + 1) % 3)
    found = summary.measure_frozen({"_pixels": represent.represent_pixels(wrong)}, wrong)
    assert found["knn_pixels"]["20"] == 0
    assert found["linear_pixels"] == 0


def test_what_has_to_be_read_with_care_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_probe, "PROBE_ITERATIONS", 1)
    images = make_striped_data_set(train=30)
    found = summary.measure_frozen({"_pixels": represent.represent_pixels(images)}, images)
    assert found["notes"] == {
        "knn": "only 30 train images: all of them vote for k = 200",
        "linear_pixels": "the solver stopped after 1 iterations, not converged",
    }
    assert set(found["knn_pixels"]) == {"20", "200"}
    for note in found["notes"].values():
        assert note in summary.format_table(found)


@pytest.mark.parametrize(("train", "test"), [(0, 0), (-1, -1), (-1, 0), ([0, 1] * 30, -1)])
def test_without_labels_nothing_is_classified(train: Any, test: Any) -> None:
    images = relabel(make_striped_data_set(), train, test)
    assert not dataset.has_labels(images)
    found = summary.measure_frozen({"_pixels": represent.represent_pixels(images)}, images)
    missing = found.pop("notes", {}).get("labels", "")
    assert found == {"schema": 1, "train_on": "train"} and missing == dataset.describe_unlabelled(images)
    table = summary.format_table({**found, "notes": {"labels": missing}})
    assert "were skipped, because they need labels" in table and missing in table
    assert knn.draw_knn_sample(images, 0) is None


def test_an_image_without_a_label_is_left_out_of_every_measurement() -> None:
    images = make_striped_data_set()
    stray = relabel(images, [-1, *images.train.labels[1:]], [-1, *images.test.labels[1:]])
    rest = dataclasses.replace(
        images,
        train=dataset.Split(images.train.images[1:], images.train.labels[1:]),
        test=dataset.Split(images.test.images[1:], images.test.labels[1:]),
    )
    found, wanted = (
        summary.measure_frozen({"_pixels": represent.represent_pixels(each)}, each) for each in (stray, rest)
    )
    assert found["notes"].pop("labels").startswith("2 of 90 images have no label")
    assert found == wanted
    sample = knn.draw_knn_sample(stray, 0)
    assert sample is not None and (len(sample.train.labels), len(sample.test.labels)) == (59, 29)
    assert min(sample.train.labels.min(), sample.test.labels.min()) >= 0


def test_mean_and_spread_are_those_of_the_sample() -> None:
    found = summary.summarise([0.5, 0.7, 0.9])
    assert found == {"mean": pytest.approx(0.7), "std": pytest.approx(0.2), "n": 3}
    assert summary.summarise([0.5]) == {"mean": 0.5, "std": None, "n": 1}


# The table


def test_the_table_shows_every_number() -> None:
    text = summary.format_table(
        {
            "schema": 1,
            "train_on": "all",
            "knn": {"20": 0.9361, "200": 0.911},
            "knn_pixels": {"20": 0.489, "200": 0.4},
            "linear": 0.95,
            "finetune": {"0.01": 0.61},
        }
    )
    lines = text.splitlines()
    assert lines[0].split() == ["accuracy,", "0", "to", "1", "k-NN", "20", "k-NN", "200", "linear"]
    assert lines[1].split() == ["pixels", "0.489", "0.400", "-"]
    assert lines[2].split() == ["trained", "encoder", "0.936", "0.911", "0.950"]
    assert lines[3] == "fine-tuned on 1% of the labels: 0.610"
    assert lines[4].startswith("  k-NN k: vote of the k most similar training images.")
    assert "inflates" in lines[5]
    assert len(lines) == 6


def test_a_note_names_its_measurement_in_words() -> None:
    notes = {"knn": "few images", "linear": "a", "linear_untrained": "b", "linear_pixels": "c"}
    lines = summary.format_table({"linear": 0.5, "notes": notes}).splitlines()
    kinds = ["trained encoder: a", "untrained encoder: b", "pixels: c"]
    assert lines[-4:] == ["k-NN: few images", *(f"linear probe, {kind}" for kind in kinds)]


def test_the_table_of_nothing_says_why() -> None:
    assert "two classes" in summary.format_table({"schema": 1, "train_on": "train"})
