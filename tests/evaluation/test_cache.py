"""Tests that evaluation uses stored encoder outputs (h) and accuracies only for equal weights, images and settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lowlevel_simclr.data import dataset
from lowlevel_simclr.data.transform import PixelScaling
from lowlevel_simclr.evaluation import cache
from lowlevel_simclr.evaluation.represent import Represented, compute_h, represent_splits
from tests.support.labelled_images import make_striped_data_set
from tests.support.small_encoder import build_small_encoder


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which each computation of h adds an entry."""
    calls, represent = [], represent_splits

    def counted(*given: Any, **options: Any) -> Represented:
        calls.append(1)
        return represent(*given, **options)

    monkeypatch.setattr(cache, "represent_splits", counted)
    return calls


# Stored outputs h


def test_h_is_kept_and_used_again(tmp_path: Path, computed: list[int]) -> None:
    encoder, images = build_small_encoder(), make_striped_data_set()
    said: list[str] = []
    given = tmp_path, "trained", 7, "abc", encoder, images
    first, again = (cache.represent_cached(*given, say=said.append) for _ in range(2))
    title = "representation (h), trained encoder"
    assert said == [f"{title} ...", f"{title}: from an earlier evaluation"]
    expected = compute_h(encoder, images.train.images)
    assert len(computed) == 1
    np.testing.assert_array_equal(first.train, expected)
    np.testing.assert_array_equal(again.train, expected)
    np.testing.assert_array_equal(again.test, first.test)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["h/trained-test/step-00000007.npz", "h/trained-train/step-00000007.npz"]


@pytest.mark.parametrize("changed", ["weights", "config", "image", "labels", "scaling", "damage", "kind"])
def test_h_of_anything_else_is_computed_anew(tmp_path: Path, computed: list[int], changed: str) -> None:
    encoder, images, kind, step, key, scaling = (
        build_small_encoder(),
        make_striped_data_set(),
        "trained",
        7,
        "abc",
        (None, None),
    )
    cache.represent_cached(tmp_path, kind, step, key, encoder, images)
    if changed == "weights":
        encoder = build_small_encoder(seed=5)
    elif changed == "config":
        key = "abd"
    elif changed == "image":
        pixels = images.test.images.copy()
        pixels[3, 0, 0, 0] ^= 1
        images = dataclasses.replace(images, test=dataset.Split(pixels, images.test.labels))
    elif changed == "labels":
        images = dataclasses.replace(images, test=dataset.Split(images.test.images, (images.test.labels + 1) % 3))
    elif changed == "scaling":
        scaling = ((0.5,) * 3, (0.5,) * 3)
    elif changed == "damage":
        file = tmp_path / "h" / "trained-test" / "step-00000007.npz"
        file.write_bytes(file.read_bytes()[:-200])
    else:
        kind = "untrained"
    found = cache.represent_cached(tmp_path, kind, step, key, encoder, images, PixelScaling(*scaling))
    assert len(computed) == 2
    np.testing.assert_array_equal(found.test, compute_h(encoder, images.test.images, PixelScaling(*scaling), 256))
    cache.represent_cached(tmp_path, kind, step, key, encoder, images, PixelScaling(*scaling))
    assert len(computed) == 2


def test_a_later_step_replaces_an_earlier_one(tmp_path: Path) -> None:
    images = make_striped_data_set()
    for step in (7, 9):
        cache.represent_cached(tmp_path, "trained", step, "abc", build_small_encoder(seed=step), images)
    assert [path.name for path in (tmp_path / "h" / "trained-train").iterdir()] == ["step-00000009.npz"]


# Stored accuracies


def test_an_accuracy_is_kept_for_its_seed_fraction_and_recipe(tmp_path: Path) -> None:
    store = cache.ScoreStore(tmp_path, "finetune", {"weights": "abc", "recipe": {"steps": 3}})
    assert store.get(0) is None
    store.put(0.5, 0)
    store.put(0.25, 1, 0.1)
    again = cache.ScoreStore(tmp_path, "finetune", {"recipe": {"steps": 3}, "weights": "abc"})
    assert (again.get(0), again.get(1, 0.1), again.get(1), again.get(0, 0.1)) == (0.5, 0.25, None, None)
    for protocol, made_of in (
        ("linear_augmented", store.made_of),
        ("finetune", {**store.made_of, "weights": "abd"}),
        ("finetune", {**store.made_of, "recipe": {"steps": 4}}),
    ):
        assert cache.ScoreStore(tmp_path, protocol, made_of).get(0) is None


def test_an_accuracy_of_another_recipe_is_replaced(tmp_path: Path) -> None:
    old, new = (cache.ScoreStore(tmp_path, "finetune", {"recipe": steps}) for steps in (3, 4))
    old.put(0.5, 0)
    new.put(0.75, 0)
    assert (old.get(0), new.get(0)) == (None, 0.75)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"finetune, 1 of the labels, seed 0": 5}',
        '{"finetune, 1 of the labels, seed 0": {"made_of": {}}}',
        '{"finetune, 1 of the labels, seed 0": {"made_of": {}, "accuracy": "high"}}',
    ],
)
def test_damaged_accuracies_are_measured_again(tmp_path: Path, content: str) -> None:
    (tmp_path / cache.FILE).write_text(content)
    store = cache.ScoreStore(tmp_path, "finetune", {})
    assert store.get(0) is None
    store.put(0.5, 0)
    assert store.get(0) == 0.5


def test_damaged_accuracies_are_kept_beside_the_new_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / cache.FILE).write_text("{")
    cache.ScoreStore(tmp_path, "finetune", {}).put(0.5, 0)
    assert (tmp_path / f"{cache.FILE}.damaged").read_text() == "{"
    assert f"It is kept as {cache.FILE}.damaged." in capsys.readouterr().err
