"""Tests two ways to judge an encoder by training with labels: fine-tuning, and the linear probe on augmented images.

The probe trains only a linear classifier on the encoder's output h. Fine-tuning also trains a copy of the encoder. Both
must use only the allowed share of the labels. They must not change the encoder itself.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import LogisticRegression

from lowlevel_simclr.data import dataset
from lowlevel_simclr.data.views import Views
from lowlevel_simclr.evaluation import fine_tune, represent
from lowlevel_simclr.evaluation.fine_tune import Recipe, Trial
from tests.support.labelled_images import make_striped_data_set
from tests.support.progress_lines import print_every_line
from tests.support.small_encoder import build_small_encoder

QUICK = Recipe(steps=40, batch_size=16, optimizer="sgd", learning_rate=0.5)


def plain_views(seed: int) -> Views:
    """Return a function that returns two copies of each image, in place of two random changes (views) of it."""

    def views(epoch: tf.Tensor, index: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        x = tf.cast(images, tf.float32) / 255
        return tf.concat([x, x], axis=0)

    return views


def fine_tuned(images: dataset.DataSet, fraction: float, recipe: Recipe = QUICK) -> float:
    """Return the accuracy of fine-tuning with seed 0."""
    trials = [Trial(0, fraction)]
    return next(
        accuracy for _, accuracy in fine_tune.fine_tune(build_small_encoder(), images, trials, plain_views, recipe)
    )


# Which labels are used


@pytest.mark.parametrize("fraction", [0.1, 0.25, 1.0])
def test_every_class_gives_the_same_share_of_its_labels(fraction: float) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [40, 20, 100]))
    rows = fine_tune.select_labelled_rows(labels, fraction, seed=3)
    assert np.bincount(labels[rows]).tolist() == [round(fraction * count) for count in (40, 20, 100)]
    assert np.all(np.diff(rows) > 0)


def test_a_class_of_few_images_gives_one_label_at_least() -> None:
    labels = np.repeat([0, 1, 4], [3, 3, 1000])
    rows = fine_tune.select_labelled_rows(labels, 0.01, seed=0)
    assert np.bincount(labels[rows]).tolist() == [1, 1, 0, 0, 10]


def test_the_labels_are_drawn_by_the_seed() -> None:
    labels = np.repeat([0, 1], 100)
    one, again, other = (fine_tune.select_labelled_rows(labels, 0.1, seed).tolist() for seed in (1, 1, 2))
    assert one == again and one != other


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction of the labels is"):
        fine_tune.select_labelled_rows(np.array([0, 1]), fraction, 0)


# Fine-tuning


def longer(times: float) -> tf.keras.Model:
    """Return the small encoder, with its outputs h multiplied by `times`."""
    f = build_small_encoder()
    return tf.keras.Model(f.inputs, tf.keras.layers.Rescaling(times)(f.outputs[0]))


def test_h_is_brought_to_a_length_and_keeps_its_shape() -> None:
    f, train = longer(64.0), make_striped_data_set().train
    centre, scale = fine_tune.scale_h_to_length(f, train, 10.0)
    h = represent.compute_h(f, train.images)
    brought = (h - centre) / scale
    assert np.ptp(scale) == 0
    np.testing.assert_allclose(np.sqrt(np.mean(np.sum(brought**2, axis=1))), 10.0, rtol=1e-5)
    np.testing.assert_allclose(brought.mean(axis=0), 0, atol=1e-4)  # float32 sums of up to 1e2 round by about 1e-5


def test_h_that_is_the_same_of_every_image_is_left_as_long_as_it_is() -> None:
    _, scale = fine_tune.scale_h_to_length(longer(0.0), make_striped_data_set().train, 10.0)
    assert set(scale) == {1.0}


def test_fine_tuning_is_the_same_whatever_the_length_of_h() -> None:
    images, recipe = make_striped_data_set(), QUICK._replace(learning_rate=0.025, h_length=10.0)
    lengths = (1.0, 1024.0)  # factors of h; powers of two make no rounding error
    short, long = (
        [accuracy for _, accuracy in fine_tune.fine_tune(longer(length), images, [Trial(0)], plain_views, recipe)]
        for length in lengths
    )
    assert short == long and short[0] > 0.9
    assert fine_tune.FINE_TUNING.h_length  # `evaluate` uses this setting too


def test_fine_tuning_learns_moves_the_encoder_meanwhile_and_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    images, encoder, seen = make_striped_data_set(), build_small_encoder(), []
    before, look = represent.hash_weights(encoder), fine_tune.ClassifierTrainer.measure_accuracy

    def look_and_remember(teacher: fine_tune.ClassifierTrainer, *given: object) -> float:
        seen.append(represent.hash_weights(encoder))
        return look(teacher, *given)

    monkeypatch.setattr(fine_tune.ClassifierTrainer, "measure_accuracy", look_and_remember)
    trials = [Trial(0, 0.2), Trial(0)]
    found = list(fine_tune.fine_tune(encoder, images, trials, plain_views, QUICK))
    assert [trial for trial, _ in found] == trials
    assert found[1][1] > 0.9  # chance is 1/3
    assert len({before, *seen}) == 3 and represent.hash_weights(encoder) == before


def test_a_trial_sees_the_images_of_its_labels_and_all_of_them_as_they_are() -> None:
    train = make_striped_data_set().train
    seen, labels = fine_tune.draw_share(train, Trial(3, 0.2))
    rows = fine_tune.select_labelled_rows(train.labels, 0.2, seed=3)
    np.testing.assert_array_equal(seen, train.images[rows])
    np.testing.assert_array_equal(labels, train.labels[rows])
    seen, labels = fine_tune.draw_share(train, Trial(3))
    assert seen is train.images
    np.testing.assert_array_equal(labels, train.labels)


def test_labels_beyond_the_share_are_not_seen() -> None:
    images = make_striped_data_set()
    rows = fine_tune.select_labelled_rows(images.train.labels, 0.2, seed=0)
    other = (images.train.labels + 1) % 3  # with classes of equal sizes, the seed draws the same rows
    unseen = np.setdiff1d(np.arange(60), rows)
    pixels = images.train.images.copy()
    pixels[unseen] = 0
    hidden = dataclasses.replace(images, train=dataset.Split(pixels, images.train.labels))
    wrong = dataclasses.replace(images, train=dataset.Split(images.train.images, other))
    right = fine_tuned(images, 0.2)
    assert fine_tuned(hidden, 0.2) == right
    assert fine_tuned(wrong, 0.2) < 0.2 < 0.6 < right


def test_a_training_does_not_depend_on_those_before_it_and_seeds_differ() -> None:
    images, short = make_striped_data_set(), QUICK._replace(steps=3)
    encoder = build_small_encoder()
    teacher = fine_tune.ClassifierTrainer(fine_tune.build_classifier(encoder, 3, frozen=False), short)
    kernels = []
    for seed in (0, 1, 0):
        teacher.train(images.train.images, images.train.labels, plain_views(seed), seed)
        kernels.append(teacher.classifier.kernel.numpy())
    np.testing.assert_array_equal(kernels[0], kernels[2])
    assert np.abs(kernels[0] - kernels[1]).max() > 0


def test_a_learning_rate_that_is_too_high_is_told() -> None:
    with pytest.raises(fine_tune.Diverged, match=r"within 40 steps at a learning rate of 1e\+30. Use a lower"):
        fine_tuned(make_striped_data_set(), 1.0, QUICK._replace(learning_rate=1e30))


# The linear probe on augmented images (views)


def test_the_probe_on_plain_views_comes_near_the_least_loss_there_is() -> None:
    """Compare the loss of the probe with that of scikit-learn's logistic regression without a penalty.

    The problem is convex, so scikit-learn finds the lowest possible loss. The probe must come close to it.
    """
    images, encoder = make_striped_data_set(train=300), build_small_encoder()
    noise = np.random.default_rng(0)
    labels = np.where(noise.random(300) < 0.3, noise.integers(0, 3, 300), images.train.labels)
    h = represent.compute_h(encoder, images.train.images)
    standard = h.mean(axis=0), h.std(axis=0)
    recipe = Recipe(steps=300, batch_size=300, optimizer="adamw", learning_rate=0.05)
    teacher = fine_tune.ClassifierTrainer(
        fine_tune.build_classifier(encoder, 3, frozen=True, standard=standard), recipe
    )
    teacher.train(images.train.images, labels, plain_views(0), 0)
    columns = (h - standard[0]) / standard[1]
    best = LogisticRegression(C=1e6, tol=1e-8, max_iter=5000).fit(columns, labels).predict_proba(columns)
    ours = tf.nn.softmax(teacher.classifier.compute_logits(h)).numpy()
    loss, least = (-np.log(chances[np.arange(300), labels]).mean() for chances in (ours, best))
    assert least - 1e-4 < loss < 1.02 * least
    assert least < 0.9 * np.log(3)  # the classes can be learned: a guess has the loss log(3)


def test_the_probe_on_views_leaves_the_encoder_and_tells_each_seed() -> None:
    images, encoder = make_striped_data_set(), build_small_encoder()
    before, h = represent.hash_weights(encoder), represent.represent_splits(encoder, images)
    recipe = Recipe(steps=200, batch_size=60, optimizer="adamw", learning_rate=0.05)
    found = list(fine_tune.probe_on_views(encoder, h.train, images, [Trial(4), Trial(5)], plain_views, recipe))
    assert [trial.seed for trial, _ in found] == [4, 5] and all(accuracy > 0.6 for _, accuracy in found)
    assert represent.hash_weights(encoder) == before


def test_an_encoder_that_moves_under_the_probe_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    images, encoder = make_striped_data_set(), build_small_encoder()
    h = represent.represent_splits(encoder, images)

    def disturb(teacher: fine_tune.ClassifierTrainer, *given: object) -> None:
        encoder.set_weights([weight + 1 for weight in encoder.get_weights()])

    monkeypatch.setattr(fine_tune.ClassifierTrainer, "train", disturb)
    with pytest.raises(represent.EncoderChanged, match="weights changed"):
        list(fine_tune.probe_on_views(encoder, h.train, images, [Trial(0)], plain_views, QUICK))


def test_both_trainings_with_labels_count_their_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    print_every_line(monkeypatch)
    images, encoder, trials = make_striped_data_set(), build_small_encoder(), [Trial(0), Trial(1)]
    recipe = QUICK._replace(steps=3)
    h = represent.compute_h(encoder, images.train.images)
    list(fine_tune.fine_tune(encoder, images, trials, plain_views, recipe))
    assert capsys.readouterr() == ("", "")
    list(fine_tune.fine_tune(encoder, images, trials, plain_views, recipe, title_of=lambda trial: f"tune {trial.seed}"))
    list(fine_tune.probe_on_views(encoder, h, images, trials, plain_views, recipe, title_of=lambda trial: "probe"))
    printed = capsys.readouterr().err
    assert "tune 0: 3 of 3 steps, " in printed and "tune 1: 2 of 3 steps, " in printed
    assert printed.count("probe: 3 of 3 steps, ") == 2
