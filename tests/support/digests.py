"""Computes a digest (hash) of the results of each C++ op, so that tests can compare the results of several processes.

For example, the digests must be equal for any number of threads.
"""

from __future__ import annotations

import hashlib

import numpy as np
import tensorflow as tf

from lowlevel_simclr import ops
from lowlevel_simclr.data.resize_pixels import Box, Size, load_function
from lowlevel_simclr.runtime import platform_ops
from tests.support.nt_xent_calls import loss_and_gradient, rows
from tests.support.view_inputs import images_of
from tests.support.view_recipes import RECIPE


def digest_nt_xent() -> str:
    """Return the digest of the loss (NT-Xent), for shapes that the op divides into one, several and many blocks."""
    digest = hashlib.sha256()
    for pairs, dim in ((1, 1), (40, 24), (130, 20), (300, 16), (3400, 2)):
        for dtype in ("float32", "float64", "bfloat16") if pairs < 1000 else ("float32",):
            for temperature in (0.1, 0.005):
                for found in loss_and_gradient(rows(pairs, dim, dtype), temperature):
                    digest.update(found.numpy().tobytes())
    z = rows(300, 16)
    loss, state = ops.nt_xent_rows_forward(z, 17, 200, 0.1)
    everywhere = ops.nt_xent_rows_forward(z, 0, 300, 0.1)[1]
    found = ops.nt_xent_rows_backward(z, everywhere, tf.ones([600]), 17, 200, 0.1)
    for tensor in (loss, *state, *found):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def digest_lars_update() -> str:
    """Return the digest of a weight update of LARS that is large enough for several threads."""
    choices = {"learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.02, "trust_coefficient": 0.01}
    rng = np.random.default_rng(3)
    weight, gradient, velocity = (tf.constant(rng.normal(size=(700, 301)), tf.float32) for _ in range(3))
    kinds = (tf.float32, tf.bfloat16)
    found = [each for kind in kinds for each in ops.lars_update(weight, tf.cast(gradient, kind), velocity, **choices)]
    return hashlib.sha256(b"".join(each.numpy().tobytes() for each in found)).hexdigest()


def digest_views() -> str:
    """Return the digest of augmented images (views) of 32 and 96 pixels, and of their random parameters."""
    digest = hashlib.sha256()
    for height, size in ((32, 32), (150, 96)):
        images = images_of(40, height, height + 3)
        drawn = ops.draw_view_params(5, 1, np.arange(40), RECIPE, height, height + 3)
        for tensor in (*drawn, ops.make_views(images, drawn, size)):
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def digest_resize() -> str:
    """Return the digest of images that the native library resized."""
    resize, random, digest = load_function(str(platform_ops.LIBRARY)), np.random.default_rng(11), hashlib.sha256()
    for case in range(40):
        height, width, *size = random.integers(8, 200, 4).tolist()
        pixels = random.integers(0, 256, (height, width, 1 + 2 * (case % 2)), np.uint8)
        digest.update(resize(pixels, Size(*size), Box(0.25, 0.5, width - 1.5, height)).tobytes())
    return digest.hexdigest()
