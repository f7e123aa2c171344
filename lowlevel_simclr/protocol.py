"""What an encoder has learned: h of every image, cosine k-NN and a linear probe on it, beside their baselines.

`train` and `evaluate` both call this. The encoder is frozen: it runs in inference mode, and its weights are hashed
before and after. Labels of the test split are compared with, never chosen by.

Not here: files, pictures, the configuration.
"""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from lowlevel_simclr.dataset import DataSet, Split

SCHEMA = 1  # of evaluation.json
BATCH_SIZE = 256  # images that go through the encoder at once
KNN_COUNTS = (20, 200)
KNN_TEMPERATURE = 0.07  # Wu et al. 2018, section 3.4
SAMPLE_COUNT = 20  # k on the held-out sample, which is too small for 200
LARGEST_PIXELS, REDUCED_SIDE = 64 * 64, 32  # of an image in the baseline of pixels, see `pixels`
PROBE_C = 0.01  # inverse weight of the penalty, see `linear_probe`
PROBE_TOLERANCE = 1e-3
PROBE_ITERATIONS = 300
_SIMILARITIES_AT_ONCE = 2**24  # 64 MiB of float32, and twice that for their order

Scaling = Sequence[float] | None  # one number a channel, on pixels in [0, 1]
Say = Callable[[str], object]


class EncoderChanged(RuntimeError):
    """The weights of an encoder that has to be frozen are not what they were."""


class Represented(NamedTuple):
    """One row for each image of the train split (n, d) and of the test split (m, d), float32: h, or plain pixels."""

    train: np.ndarray
    test: np.ndarray


class Probe(NamedTuple):
    """A linear probe: its accuracy on the test split in [0, 1], and how its solver ended."""

    accuracy: float
    iterations: int
    converged: bool


class Neighbours(NamedTuple):
    """Test images (q,) and the train images (q, k) that are nearest to each in h, nearest first; both are indices."""

    queries: np.ndarray
    neighbours: np.ndarray


# Images -> rows


def representations(
    encoder: tf.keras.Model,
    images: np.ndarray,
    batch_size: int = BATCH_SIZE,
    mean: Scaling = None,
    std: Scaling = None,
) -> np.ndarray:
    """The representation h of every image, in inference mode.

    The test transform is that of a view without its randomness: the whole image, scaled to [0, 1], resized to the
    encoder's input where it has another size (bilinear, half-pixel centres, antialiased), then (x - mean) / std.

    Args:
        encoder: f, (B, S, S, C) -> (B, d).
        images: (n, H, W, C) uint8.
        batch_size: images at once. The last batch is filled up, so that there is one graph for all of them.
        mean: per channel, None for 0.
        std: per channel, None for 1.

    Returns:
        (n, d) float32.

    Raises:
        ValueError: there are no images, or h is not finite.
    """
    if len(images) == 0:
        raise ValueError("there are no images to represent: give one at least")
    batch_size = min(batch_size, len(images))
    scaling = (None if mean is None else tuple(mean), None if std is None else tuple(std))
    parts = [
        _h_of(encoder, tf.constant(_filled(images[first : first + batch_size], batch_size)), *scaling).numpy()
        for first in range(0, len(images), batch_size)
    ]
    h = np.concatenate(parts)[: len(images)]  # (n, d)
    if not np.isfinite(h).all():
        rows = np.flatnonzero(~np.isfinite(h).all(axis=1))
        raise ValueError(f"h of {rows.size} images is not finite, of image {rows[0]} first: the encoder has diverged")
    return h


def _filled(images: np.ndarray, batch_size: int) -> np.ndarray:
    """The images with black ones behind them, (batch_size, H, W, C)."""
    return np.pad(images, [(0, batch_size - len(images)), (0, 0), (0, 0), (0, 0)])


@tf.function(autograph=False)
def _h_of(encoder: tf.keras.Model, images: tf.Tensor, mean: Scaling, std: Scaling) -> tf.Tensor:
    """One batch (B, H, W, C) uint8 -> h (B, d) float32; traced once for each encoder and shape."""
    x = tf.cast(images, tf.float32) / 255
    size = encoder.input_shape[1:3]
    if None not in size and tuple(size) != tuple(images.shape[1:3]):
        x = tf.image.resize(x, size, "bilinear", antialias=True)
    x = x if mean is None else x - tf.constant(mean, tf.float32)
    x = x if std is None else x / tf.constant(std, tf.float32)
    return tf.cast(encoder(x, training=False), tf.float32)


def transform(shape: Sequence[int], size: int, mean: Scaling = None, std: Scaling = None) -> str:
    """The test transform of `representations` in words.

    Args:
        shape: of the images, (..., H, W, C).
        size: S, pixels a side of what the encoder takes.
        mean: per channel, None for 0.
        std: per channel, None for 1.
    """
    height, width = shape[-3:-1]
    words = ["the whole image, no augmentation"]
    if (height, width) != (size, size):
        words.append(f"{width}x{height} resized to {size}x{size} (bilinear, antialiased)")
    words.append("pixels in [0, 1]")
    if mean is not None:
        words.append("less " + " ".join(f"{value:.4g}" for value in mean))
    if std is not None:
        words.append("over " + " ".join(f"{value:.4g}" for value in std))
    return ", ".join(words)


def pixels(images: np.ndarray) -> np.ndarray:
    """The baseline that has learned nothing: images uint8 (n, H, W, C) -> (n, H*W*C) float32 in [0, 1].

    Images with more pixels than 64 x 64 are reduced to 32 x 32 first (bilinear, antialiased): rows of the full size
    would neither fit into memory nor tell images apart better.
    """
    if images.shape[1] * images.shape[2] <= LARGEST_PIXELS:
        return np.asarray(images).reshape(len(images), -1).astype(np.float32) / 255
    parts = [_reduced(images[first : first + BATCH_SIZE]) for first in range(0, len(images), BATCH_SIZE)]
    return np.concatenate(parts).reshape(len(images), -1)


def _reduced(images: np.ndarray) -> np.ndarray:
    """(n, H, W, C) uint8 -> (n, 32, 32, C) float32 in [0, 1]."""
    x = tf.cast(np.asarray(images), tf.float32) / 255
    return tf.image.resize(x, (REDUCED_SIDE, REDUCED_SIDE), "bilinear", antialias=True).numpy()


def represent(
    encoder: tf.keras.Model,
    images: DataSet,
    mean: Scaling = None,
    std: Scaling = None,
    batch_size: int = BATCH_SIZE,
) -> Represented:
    """The representations h of both splits, with a proof that the encoder was frozen.

    Raises:
        EncoderChanged: the encoder was not frozen meanwhile.
        ValueError: a split is empty, or h is not finite.
    """
    before = weights_hash(encoder)
    h = Represented(*(representations(encoder, split.images, batch_size, mean, std) for split in _splits(images)))
    refuse_changed(encoder, before)
    return h


def refuse_changed(encoder: tf.keras.Model, before: str) -> None:
    """Proves that an encoder was frozen.

    Args:
        encoder: f, now.
        before: its `weights_hash` then.

    Raises:
        EncoderChanged: a weight is another.
    """
    after = weights_hash(encoder)
    if after != before:
        raise EncoderChanged(
            f"the encoder's weights changed while it was evaluated (SHA-256 {before[:12]} -> {after[:12]}): "
            "nothing may train it meanwhile"
        )


def pixels_of(images: DataSet) -> Represented:
    """The pixels of both splits as rows."""
    return Represented(*(pixels(split.images) for split in _splits(images)))


def _splits(images: DataSet) -> tuple[Split, Split]:
    return images.train, images.test


def weights_hash(model: tf.keras.Model) -> str:
    """SHA-256 over names, shapes, types and bytes of all weights of a model, moving statistics too; 64 hex digits."""
    digest = hashlib.sha256()
    for variable in model.weights:
        array = np.ascontiguousarray(variable.numpy())
        digest.update(f"{variable.name} {array.shape} {array.dtype}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


# Rows and labels -> accuracies


def knn(
    train_h: np.ndarray,
    train_labels: np.ndarray,
    test_h: np.ndarray,
    test_labels: np.ndarray,
    counts: Iterable[int] = KNN_COUNTS,
) -> dict[str, float]:
    """Accuracy of the cosine weighted k-NN classifier, Wu et al. 2018, section 3.4.

    The k train rows most similar to a test row vote for their labels, each with exp(similarity / 0.07). Where the
    train split has fewer than k rows all of them vote.

    Args:
        train_h: (n, d).
        train_labels: (n,) class numbers from 0.
        test_h: (m, d).
        test_labels: (m,).
        counts: the values of k.

    Returns:
        {"20": accuracy in [0, 1], ...}, a key for each k as it was asked for.
    """
    counts = tuple(counts)
    index, similarity = _nearest(train_h, test_h, max(counts))  # (m, k), (m, k)
    labels, weights = train_labels[index], np.exp(similarity / KNN_TEMPERATURE)
    rows = np.arange(len(test_h))[:, None]
    accuracies = {}
    for count in counts:
        votes = np.zeros((len(test_h), train_labels.max() + 1))  # (m, classes)
        np.add.at(votes, (rows, labels[:, :count]), weights[:, :count])
        accuracies[str(count)] = float(np.mean(votes.argmax(axis=1) == test_labels))
    return accuracies


def _nearest(train_h: np.ndarray, test_h: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The train rows most similar to each test row, nearest first: index (m, k) and cosine (m, k) float64.

    k is `count`, or n where that is less. In parts, because (m, n) similarities do not fit into memory. For 2,000 rows
    against 50,000, scikit-learn's NearestNeighbors took 1.4 times as long at width 3,072 and 3.9 times at 64.
    """
    train_rows, test_rows = _unit_rows(train_h), _unit_rows(test_h)
    count = min(count, len(train_rows))
    at_once = max(1, _SIMILARITIES_AT_ONCE // len(train_rows))
    parts = [
        _most_similar(test_rows[first : first + at_once] @ train_rows.T, count)
        for first in range(0, len(test_rows), at_once)
    ]
    index, similarity = (np.concatenate(column) for column in zip(*parts))
    return index, similarity.astype(np.float64)


def _most_similar(similarity: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and values of the `count` largest of each row, largest first."""
    index = np.argpartition(similarity, -count, axis=1)[:, -count:]
    values = np.take_along_axis(similarity, index, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(index, order, axis=1), np.take_along_axis(values, order, axis=1)


def _unit_rows(h: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32; a row of zeros stays one, alike to nothing."""
    norm = np.sqrt(np.einsum("nd,nd->n", h, h, dtype=np.float64))[:, None]
    return (h / np.where(norm == 0, 1, norm)).astype(np.float32)


def linear_probe(
    train_h: np.ndarray, train_labels: np.ndarray, test_h: np.ndarray, test_labels: np.ndarray, seed: int = 0
) -> Probe:
    """Multinomial logistic regression on frozen rows, every column brought to mean 0 and variance 1 on the train split.

    scikit-learn's StandardScaler and LogisticRegression (L-BFGS) with a fixed C = 0.01: nothing is chosen, so nothing
    can be chosen by the test split. It ends where no entry of the mean gradient is above 1e-3 (144
    iterations for 20,000 images of CIFAR-10 as pixels), or after 300. The problem is convex and the solver draws
    nothing: the seed only goes to it.

    Args:
        train_h: (n, d).
        train_labels: (n,), two classes at least.
        test_h: (m, d).
        test_labels: (m,).
        seed: LogisticRegression's random_state.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train_h)
    probe = LogisticRegression(C=PROBE_C, max_iter=PROBE_ITERATIONS, tol=PROBE_TOLERANCE, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by `converged`
        probe.fit(scaler.transform(train_h), train_labels)
    iterations = int(probe.n_iter_.max())
    accuracy = float(probe.score(scaler.transform(test_h), test_labels))
    return Probe(accuracy, iterations, iterations < PROBE_ITERATIONS)


def labelled(images: DataSet) -> bool:
    """Whether there is anything to classify: labels on both splits, and two classes at least in the train split."""
    labels = np.concatenate([images.train.labels, images.test.labels])
    return bool(len(images.test.labels) and labels.min() >= 0 and len(np.unique(images.train.labels)) > 1)


def evaluate(
    h: Mapping[str, Represented],
    images: DataSet,
    seed: int = 0,
    train_on: str = "train",
    say: Say = lambda text: None,
    protocols: Collection[str] = ("knn", "linear"),
    seeds: int = 1,
) -> dict[str, Any]:
    """k-NN and linear probe of each kind of rows, as evaluation.json holds them.

    Args:
        h: rows by what stands behind a key: "" the trained encoder, "_untrained", "_pixels".
        images: whose labels are compared with.
        seed: of the linear probe.
        train_on: what the encoder was trained on, "train" or "all".
        say: is told what is measured, as it can take minutes.
        protocols: "knn", "linear" or both.
        seeds: the linear probe of the trained encoder is run with the seeds seed, seed + 1 ...; its mean is told. The
            problem is convex and nothing is drawn, so the spread is the solver's.

    Returns:
        {"schema": 1, "train_on": .., "knn": {"20": ..}, "knn_pixels": .., "linear": ..}; accuracies in [0, 1].
        Without labels, or with one class, only the first two. "notes" by key, where a number has to be read with care.
        "seeds" where there are several: {"linear": {"mean": .., "std": .., "n": ..}}.
    """
    results: dict[str, Any] = {"schema": SCHEMA, "train_on": train_on}
    if labelled(images) and "knn" in protocols:
        results |= _neighbours(h, images, say)
    if labelled(images) and "linear" in protocols:
        results |= _probes(h, images, seed, seeds, say, results.pop("notes", {}))
    return results


def _neighbours(h: Mapping[str, Represented], images: DataSet, say: Say) -> dict[str, Any]:
    """k-NN of each kind of rows, and a note where there are few train images."""
    results: dict[str, Any] = {}
    for name, rows in h.items():
        say(f"k-NN{name.replace('_', ', ')} ...")
        results["knn" + name] = knn(rows.train, images.train.labels, rows.test, images.test.labels, KNN_COUNTS)
    count = len(images.train.labels)
    few = [str(wanted) for wanted in KNN_COUNTS if wanted > count]
    note = f"only {count} train images: all of them vote for k = {', '.join(few)}"
    return {**results, "notes": {"knn": note}} if few else results


def _probes(
    h: Mapping[str, Represented], images: DataSet, seed: int, seeds: int, say: Say, notes: dict[str, str]
) -> dict[str, Any]:
    """The linear probe of each kind of rows, the trained encoder's over several seeds; and the notes, old and new."""
    results: dict[str, Any] = {}
    for name, rows in h.items():
        say(f"linear probe{name.replace('_', ', ')} ...")
        given = rows.train, images.train.labels, rows.test, images.test.labels
        probes = [linear_probe(*given, seed + more) for more in range(1 if name else seeds)]
        results["linear" + name] = float(np.mean([probe.accuracy for probe in probes]))
        if len(probes) > 1:
            results["seeds"] = {"linear" + name: mean_and_spread([probe.accuracy for probe in probes])}
        if not all(probe.converged for probe in probes):
            notes["linear" + name] = f"the solver stopped after {probes[0].iterations} iterations, not converged"
    return {**results, "notes": notes} if notes else results


def mean_and_spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (None of one value) and number of accuracies, as "seeds" holds them."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": spread, "n": len(values)}


_ROWS = {"_pixels": "pixels", "_untrained": "untrained encoder", "": "trained encoder"}


def table(evaluation: Mapping[str, Any]) -> str:
    """evaluation.json as lines to read; what was not run is a dash."""
    counts = sorted({count for name in _ROWS for count in evaluation.get("knn" + name, ())}, key=int)
    inflated = ["trained on train and test images together, which inflates these numbers"]
    inflated = inflated if evaluation.get("train_on") == "all" else []
    ran = ("linear", "linear_pixels", "finetune", "linear_augmented")
    if not counts and not any(name in evaluation for name in ran):
        return "\n".join(["no k-NN and no linear probe: they need labels of two classes at least", *inflated])
    titles = [*(f"k-NN {count}" for count in counts), "linear"]
    lines = [" " * 18 + "".join(f"{title:>10}" for title in titles)]
    for name, what in _ROWS.items():
        neighbours = evaluation.get("knn" + name, {})
        values = [*(neighbours.get(count) for count in counts), evaluation.get("linear" + name)]
        if any(value is not None for value in values):
            cells = ("-" if value is None else f"{value:.3f}" for value in values)
            lines.append(f"{what:<18}" + "".join(f"{cell:>10}" for cell in cells))
    lines += _trained_with_labels(evaluation)
    if "transform" in evaluation:
        lines.append(f"test transform: {evaluation['transform']}")
    return "\n".join([*lines, *inflated, *(f"{key}: {note}" for key, note in evaluation.get("notes", {}).items())])


def _trained_with_labels(evaluation: Mapping[str, Any]) -> list[str]:
    """A line for the probe with augmentation and for each share of the labels, with their spread over the seeds."""
    seeds = evaluation.get("seeds", {})
    lines = []
    if "linear_augmented" in evaluation:
        spread = _spread(seeds.get("linear_augmented"))
        lines.append(f"linear probe, trained on views: {evaluation['linear_augmented']:.3f}{spread}")
    for fraction, accuracy in sorted(evaluation.get("finetune", {}).items(), key=lambda item: float(item[0])):
        spread = _spread(seeds.get("finetune", {}).get(fraction))
        lines.append(f"fine-tuned on {100 * float(fraction):g}% of the labels: {accuracy:.3f}{spread}")
    if "linear" in seeds:
        lines.append(f"linear probe, trained encoder: {seeds['linear']['mean']:.3f}{_spread(seeds['linear'])}")
    return lines


def _spread(found: Mapping[str, Any] | None) -> str:
    """' +- 0.004 (3 seeds)', or nothing where there is no spread."""
    return "" if not found or found["std"] is None else f" +- {found['std']:.3f} ({found['n']} seeds)"


# While training


def knn_sample(images: DataSet, seed: int, train_count: int = 2000, test_count: int = 1000) -> DataSet | None:
    """A part of both splits, drawn once by the seed, on which k-NN is quick; None where there is nothing to classify.

    It only makes the curve of the run; the last epoch is what is reported, whatever the curve says.
    """
    random = np.random.default_rng(seed)

    def some(split: Split, count: int) -> Split:
        rows = np.sort(random.choice(len(split.images), min(count, len(split.images)), replace=False))
        return Split(split.images[rows], split.labels[rows])

    if not labelled(images):
        return None
    sample = dataclasses.replace(images, train=some(images.train, train_count), test=some(images.test, test_count))
    return sample if labelled(sample) else None


def sample_knn(
    encoder: tf.keras.Model | None,
    sample: DataSet,
    mean: Scaling = None,
    std: Scaling = None,
    batch_size: int = BATCH_SIZE,
) -> float:
    """Accuracy of 20-NN on a sample, in h of the encoder, or in pixels where it is None."""
    if encoder is None:
        h = pixels_of(sample)
    else:
        h = Represented(*(representations(encoder, split.images, batch_size, mean, std) for split in _splits(sample)))
    found = knn(h.train, sample.train.labels, h.test, sample.test.labels, [SAMPLE_COUNT])
    return found[str(SAMPLE_COUNT)]


def nearest(h: Represented, queries: int, count: int, test_labels: np.ndarray) -> Neighbours:
    """A few test images, class by class in turn, and the train images nearest to each by cosine in h.

    Args:
        h: rows of both splits.
        queries: how many test images; fewer where the test split has fewer.
        count: how many neighbours each.
        test_labels: (m,); only to show every class.
    """
    order = np.argsort(test_labels, kind="stable")
    ordered = test_labels[order]
    turn = np.empty(len(order), np.int64)  # how many of its class come before an image
    turn[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    chosen = np.lexsort((test_labels, turn))[:queries]
    return Neighbours(chosen, _nearest(h.train, h.test[chosen], count)[0])
