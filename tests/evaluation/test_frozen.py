"""protocol.py: h in inference mode, k-NN and linear probe as they are defined, and the proof that f stood still."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from lowlevel_simclr.data import dataset
from lowlevel_simclr.data.transform import PixelScaling
from lowlevel_simclr.evaluation import knn, linear_probe, represent, summary


def small_encoder(size: int = 8, seed: int = 0) -> tf.keras.Model:
    """f of one convolution with BatchNorm, (B, size, size, 3) -> (B, 5), its moving statistics not at their start."""
    tf.keras.utils.set_random_seed(seed)
    image = tf.keras.Input((size, size, 3))
    x = tf.keras.layers.BatchNormalization()(tf.keras.layers.Conv2D(5, 3)(image))
    model = tf.keras.Model(image, tf.keras.layers.GlobalAveragePooling2D()(tf.keras.layers.ReLU()(x)))
    random = np.random.default_rng(seed)
    model.set_weights([weight + random.uniform(0.05, 0.2, weight.shape) for weight in model.get_weights()])
    return model


def some_images(count: int, size: int = 8, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def data_set(train: int = 60, test: int = 30, classes: int = 3, size: int = 8) -> dataset.DataSet:
    """Images whose class is their brightness, with a little noise: easy for anything."""

    def split(count: int, seed: int) -> dataset.Split:
        labels = np.arange(count) % classes
        noise = np.random.default_rng(seed).integers(0, 30, (count, size, size, 3))
        pattern = np.arange(size * size * 3).reshape(size, size, 3) % classes == labels[:, None, None, None]
        return dataset.Split((150 * pattern + noise).astype(np.uint8), labels.astype(np.int64))

    return dataset.DataSet("stripes", split(train, 0), split(test, 1), tuple("abcdefghijkl"[:classes]))


def relabelled(images: dataset.DataSet, train: Any, test: Any) -> dataset.DataSet:
    return dataclasses.replace(
        images,
        train=dataset.Split(images.train.images, np.broadcast_to(train, images.train.labels.shape)),
        test=dataset.Split(images.test.images, np.broadcast_to(test, images.test.labels.shape)),
    )


def clouds(count: int, width: int = 6, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows (count, width) about one direction for each class, far from separable, and their labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    centres = np.random.default_rng(99).standard_normal((classes, width))
    return (centres[labels] + 1.5 * random.standard_normal((count, width))).astype(np.float32), labels


# Representations


@pytest.mark.parametrize("count", [3, 4, 11])
def test_h_is_the_encoder_in_inference_mode(count: int) -> None:
    encoder, images = small_encoder(), some_images(count)
    h = represent.compute_h(encoder, images, batch_size=4)
    expected = encoder(images.astype(np.float32) / 255, training=False).numpy()
    assert h.dtype == np.float32
    np.testing.assert_allclose(h, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(encoder(images.astype(np.float32) / 255, training=True).numpy() - expected).max() > 0.01


def test_one_graph_serves_all_batches() -> None:
    encoder = small_encoder()
    before = represent._compute_batch.experimental_get_tracing_count()
    represent.compute_h(encoder, some_images(11), batch_size=4)
    represent.compute_h(encoder, some_images(6), batch_size=4)
    assert represent._compute_batch.experimental_get_tracing_count() - before == 1


def test_the_scaling_is_that_of_the_views() -> None:
    encoder, images, mean, std = small_encoder(), some_images(5), (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
    h = represent.compute_h(encoder, images, PixelScaling(mean, std))
    x = (images / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(h, encoder(x.astype(np.float32), training=False).numpy(), rtol=1e-5, atol=1e-5)


def shrunk_or_grown(plane: np.ndarray) -> np.ndarray:
    """One channel at 8 x 8, by Pillow."""
    return np.asarray(Image.fromarray(plane.astype(np.float32)).resize((8, 8), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("size", [5, 19])
def test_another_size_is_resized_as_pillow_does(size: int) -> None:
    encoder, images = small_encoder(size=8), some_images(2, size)
    h = represent.compute_h(encoder, images)
    resized = [np.stack([shrunk_or_grown(plane) for plane in image], -1) for image in images.transpose(0, 3, 1, 2)]
    expected = encoder(np.stack(resized).astype(np.float32) / 255, training=False).numpy()
    np.testing.assert_allclose(h, expected, rtol=1e-4, atol=1e-5)


class Diverged:
    """An encoder whose h is no number."""

    input_shape = (None, 8, 8, 3)

    def __call__(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        return tf.reduce_mean(x, axis=[1, 2]) * float("nan")


def test_h_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="h of 7 images is not finite, of image 0 first"):
        represent.compute_h(Diverged(), some_images(7))


def test_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="no images to represent"):
        represent.compute_h(small_encoder(), some_images(0))


def test_pixels_are_rows_in_0_1() -> None:
    images = some_images(4)
    np.testing.assert_allclose(represent.flatten_pixels(images), images.reshape(4, -1) / 255, rtol=1e-6)
    assert represent.flatten_pixels(images).dtype == np.float32


# Frozen


def test_both_splits_are_represented_and_weights_stand_still() -> None:
    encoder, images = small_encoder(), data_set()
    before = represent.hash_weights(encoder)
    h = represent.represent_splits(encoder, images)
    np.testing.assert_array_equal(h.train, represent.compute_h(encoder, images.train.images))
    np.testing.assert_array_equal(h.test, represent.compute_h(encoder, images.test.images))
    assert represent.hash_weights(encoder) == before


class Restless:
    """An encoder that learns from what it is shown."""

    input_shape = (None, 8, 8, 3)

    def __init__(self) -> None:
        self.weights = [tf.Variable(1.0, name="scale")]

    def __call__(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        self.weights[0].assign_add(0.5)
        return tf.reduce_mean(x, axis=[1, 2]) * self.weights[0]


def test_an_encoder_that_changes_is_refused() -> None:
    with pytest.raises(represent.EncoderChanged, match="weights changed while it was evaluated"):
        represent.represent_splits(Restless(), data_set())


@pytest.mark.parametrize("place", [0, -1])  # a kernel, and a moving variance
def test_the_hash_sees_one_bit_of_any_weight(place: int) -> None:
    encoder = small_encoder()
    before, weights = represent.hash_weights(encoder), encoder.get_weights()
    weights[place].reshape(-1)[-1] = np.nextafter(weights[place].reshape(-1)[-1], np.float32(9))
    encoder.set_weights(weights)
    assert represent.hash_weights(encoder) != before
    assert len(before) == 64


# k-NN


@pytest.mark.parametrize("at_once", [1, 700, 2**24])
def test_knn_agrees_with_scikit_learn(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(knn, "_SIMILARITIES_AT_ONCE", at_once)
    (train_h, train_labels), (test_h, test_labels) = clouds(300), clouds(200, seed=1)
    found = knn.classify_by_neighbours(train_h, train_labels, test_h, test_labels, (1, 5, 20, 200))
    for count in (1, 5, 20, 200):
        oracle = KNeighborsClassifier(
            count, weights=lambda distance: np.exp((1 - distance) / 0.07), metric="cosine", algorithm="brute"
        ).fit(train_h.astype(np.float64), train_labels)
        assert found[str(count)] == pytest.approx(oracle.score(test_h.astype(np.float64), test_labels), abs=1e-12)
    assert len(set(found.values())) > 1  # the four are not one number by chance


def test_near_rows_outvote_a_majority() -> None:
    train_h = np.array([[1, 0], [0.9, np.sqrt(0.19)], [0.9, -np.sqrt(0.19)]])  # similarities 1, 0.9, 0.9 to (1, 0)
    train_labels = np.array([0, 1, 1])  # exp(1 / 0.07) > 2 exp(0.9 / 0.07)
    assert knn.classify_by_neighbours(train_h, train_labels, np.array([[2.0, 0]]), np.array([0]), [3]) == {"3": 1.0}


def test_only_directions_count() -> None:
    (train_h, train_labels), (test_h, test_labels) = clouds(100), clouds(80, seed=1)
    scale = 2.0 ** np.random.default_rng(0).integers(-20, 20, (100, 1))  # exact, so that nothing rounds
    same = knn.classify_by_neighbours(train_h * scale.astype(np.float32), train_labels, test_h, test_labels, [5, 20])
    assert same == knn.classify_by_neighbours(train_h, train_labels, test_h, test_labels, [5, 20])


def test_a_collapsed_row_is_alike_to_nothing() -> None:
    train_h, train_labels = np.array([[0.0, 0], [1, 1]], np.float32), np.array([0, 1])
    assert knn.classify_by_neighbours(train_h, train_labels, np.array([[1.0, 1], [1, 2]]), np.array([1, 1]), [1]) == {
        "1": 1.0
    }


def test_all_rows_vote_where_k_is_larger() -> None:
    (train_h, train_labels), (test_h, test_labels) = clouds(50), clouds(40, seed=1)
    found = knn.classify_by_neighbours(train_h, train_labels, test_h, test_labels, [50, 200])
    assert found["200"] == found["50"]


# Linear probe


def test_the_probe_is_scikit_learns_on_standard_columns() -> None:
    (train_h, train_labels), (test_h, test_labels) = clouds(400), clouds(300, seed=1)
    probe = linear_probe.fit_linear_probe(train_h, train_labels, test_h, test_labels)
    scaler = StandardScaler().fit(train_h)
    exact = LogisticRegression(C=0.01, tol=1e-8, max_iter=2000).fit(scaler.transform(train_h), train_labels)
    assert probe.accuracy == pytest.approx(exact.score(scaler.transform(test_h), test_labels), abs=0.01)
    assert probe.converged
    assert 0.4 < probe.accuracy < 0.95


def test_units_of_h_do_not_matter_to_the_probe() -> None:
    (train_h, train_labels), (test_h, test_labels) = clouds(400), clouds(300, seed=1)
    unit, zero = np.float32([1, 1000, 0.01, 1, 1, 5]), np.float32([0, 300, 0, 0, 7, 0])
    one = linear_probe.fit_linear_probe(train_h, train_labels, test_h, test_labels)
    other = linear_probe.fit_linear_probe(train_h * unit + zero, train_labels, test_h * unit + zero, test_labels)
    assert other.accuracy == pytest.approx(one.accuracy, abs=0.01)


def test_a_probe_that_stopped_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_probe, "PROBE_ITERATIONS", 2)
    (train_h, train_labels), (test_h, test_labels) = clouds(400), clouds(300, seed=1)
    assert linear_probe.fit_linear_probe(train_h, train_labels, test_h, test_labels)[1:] == (2, False)


# evaluation.json


def three_kinds(images: dataset.DataSet) -> dict[str, represent.Represented]:
    trained, untrained = small_encoder(seed=1), small_encoder(seed=2)
    return {
        "": represent.represent_splits(trained, images),
        "_untrained": represent.represent_splits(untrained, images),
        "_pixels": represent.represent_pixels(images),
    }


def test_an_evaluation_has_the_keys_of_its_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "KNN_COUNTS", (5, 20))
    images, said = data_set(), []
    found = summary.measure_frozen(three_kinds(images), images, seed=3, train_on="all", say=said.append)
    kinds = ("", "_untrained", "_pixels")
    assert set(found) == {"schema", "train_on", *(f"knn{kind}" for kind in kinds), *(f"linear{kind}" for kind in kinds)}
    assert (found["schema"], found["train_on"]) == (1, "all")
    for kind in kinds:
        assert set(found["knn" + kind]) == {"5", "20"}
        assert all(0 <= value <= 1 for value in [*found["knn" + kind].values(), found["linear" + kind]])
    assert found["knn_pixels"]["5"] == 1.0
    assert found["linear_pixels"] == 1.0
    assert json.loads(json.dumps(found)) == found
    spoken = ("", ", untrained", ", pixels")
    assert said == [f"{what}{kind} ..." for what in ("k-NN", "linear probe") for kind in spoken]


def test_rows_are_compared_with_their_own_labels() -> None:
    images = data_set()
    wrong = relabelled(images, images.train.labels, (images.test.labels + 1) % 3)
    found = summary.measure_frozen({"_pixels": represent.represent_pixels(wrong)}, wrong)
    assert found["knn_pixels"]["20"] == 0
    assert found["linear_pixels"] == 0


def test_what_has_to_be_read_with_care_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_probe, "PROBE_ITERATIONS", 1)
    images = data_set(train=30)
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
    images = relabelled(data_set(), train, test)
    assert not dataset.has_labels(images)
    assert summary.measure_frozen({"_pixels": represent.represent_pixels(images)}, images) == {
        "schema": 1,
        "train_on": "train",
    }
    assert knn.draw_knn_sample(images, 0) is None


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
    assert lines[0].split() == ["k-NN", "20", "k-NN", "200", "linear"]
    assert lines[1].split() == ["pixels", "0.489", "0.400", "-"]
    assert lines[2].split() == ["trained", "encoder", "0.936", "0.911", "0.950"]
    assert lines[3] == "fine-tuned on 1% of the labels: 0.610"
    assert "inflates" in lines[4]
    assert len(lines) == 5


def test_the_table_of_nothing_says_why() -> None:
    assert "two classes" in summary.format_table({"schema": 1, "train_on": "train"})


# While training


def test_a_sample_is_a_part_of_both_splits_drawn_by_the_seed() -> None:
    images = data_set()
    sample = knn.draw_knn_sample(images, 7, train_count=20, test_count=100)
    assert sample is not None
    assert (len(sample.train.images), len(sample.test.images)) == (20, 30)
    rows = [int(np.flatnonzero((images.train.images == image).all(axis=(1, 2, 3)))[0]) for image in sample.train.images]
    assert len(set(rows)) == 20
    np.testing.assert_array_equal(sample.train.labels, images.train.labels[rows])
    again, other = (knn.draw_knn_sample(images, seed, 20, 100) for seed in (7, 8))
    np.testing.assert_array_equal(again.train.images, sample.train.images)
    assert (other.train.images != sample.train.images).any()


def test_knn_of_a_sample_in_pixels_and_in_h() -> None:
    images, encoder, scaling = data_set(), small_encoder(), ((0.5,) * 3, (0.5,) * 3)
    labels = images.train.labels, images.test.labels
    for found, rows in (
        (knn.measure_knn(None, images), represent.represent_pixels(images)),
        (
            knn.measure_knn(encoder, images, PixelScaling(*scaling)),
            represent.represent_splits(encoder, images, PixelScaling(*scaling)),
        ),
    ):
        assert found == knn.classify_by_neighbours(rows.train, labels[0], rows.test, labels[1], [20])["20"]


def test_nearest_takes_a_query_of_every_class_in_turn() -> None:
    (train_h, _), (test_h, _) = clouds(50), clouds(9, seed=1)
    labels = np.array([2, 2, 0, 0, 1, 0, 2, 1, 0])
    found = knn.find_neighbours(represent.Represented(train_h, test_h), 7, 5, labels)
    np.testing.assert_array_equal(found.queries, [2, 4, 0, 3, 7, 1, 5])
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (test_h[found.queries], train_h)]
    np.testing.assert_array_equal(found.neighbours, np.argsort(-(unit[0] @ unit[1].T), axis=1)[:, :5])


def test_nearest_makes_do_with_few_images() -> None:
    (train_h, _), (test_h, _) = clouds(3), clouds(2, seed=1)
    found = knn.find_neighbours(represent.Represented(train_h, test_h), 10, 5, np.array([-1, -1]))
    assert found.neighbours.shape == (2, 3)
