"""A small encoder for tests, which computes its output h for images within milliseconds."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def build_small_encoder(size: int = 8, seed: int = 0) -> tf.keras.Model:
    """Return an encoder (B, size, size, 3) -> (B, 5): one convolution and a BatchNorm.

    BatchNorm does not have its initial values, as after some training.
    """
    tf.keras.utils.set_random_seed(seed)
    image = tf.keras.Input((size, size, 3))
    x = tf.keras.layers.BatchNormalization()(tf.keras.layers.Conv2D(5, 3)(image))
    model = tf.keras.Model(image, tf.keras.layers.GlobalAveragePooling2D()(tf.keras.layers.ReLU()(x)))
    random = np.random.default_rng(seed)
    model.set_weights([weight + random.uniform(0.05, 0.2, weight.shape) for weight in model.get_weights()])
    return model
