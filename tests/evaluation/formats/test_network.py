"""Tests the model from which all export formats are made: it must compute what encoder and projection head compute."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from lowlevel_simclr.evaluation import represent
from lowlevel_simclr.evaluation.formats import network
from tests.support.exported import SCALING, make_network

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 11, 14, 3), np.uint8)


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape and expected.std() > 0
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_images_of_any_size_become_h_and_z(monkeypatch: pytest.MonkeyPatch) -> None:
    given = make_network(monkeypatch)
    function = network.make_function(network.build_model(given), given)
    found = function(tf.constant(IMAGES))
    assert sorted(found) == given.output_names == ["h", "z"]
    assert given.signature.shape.as_list() == [None, None, None, 3] and given.signature.dtype == tf.uint8
    expected = network.compute_reference(given, IMAGES)
    for name in found:
        assert_close(found[name].numpy(), expected[name])
    assert_close(expected["h"], represent.compute_h(given.encoder, IMAGES, SCALING))


def test_without_preprocessing_it_takes_views(monkeypatch: pytest.MonkeyPatch) -> None:
    given = make_network(monkeypatch, head=False, preprocessing=False)
    views = network.prepare_input(given, IMAGES)
    assert views.shape == (3, 8, 8, 3) and views.dtype == np.float32
    function = network.make_function(network.build_model(given), given)
    assert list(function.get_concrete_function().structured_input_signature[0]) == [given.signature]
    assert_close(function(tf.constant(views))["h"].numpy(), network.compute_reference(given, IMAGES)["h"])


def test_a_fixed_size_is_in_the_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    given = make_network(monkeypatch, head=False, size=11)
    assert given.signature.shape.as_list() == [None, 11, 11, 3]
    images = IMAGES[:, :, :11]
    assert_close(network.build_model(given)(images).numpy(), network.compute_reference(given, images)["h"])
