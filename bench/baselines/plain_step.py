"""SimCLR as a competent user writes it in stock TensorFlow and Keras. bench_step compares this package with it.

The encoder uses stock Keras layers with BatchNormalization. A `tf.data` pipeline makes the views (randomly changed
versions) of each image with stateless random ops, in parallel, and prefetches them. For SimCLR's loss NT-Xent, one
matrix product gives the similarities of all views. SGD with momentum updates the weights through
`optimizer.apply_gradients`. The whole step is one tf.function. It computes in float32, which is Keras's default, or in
mixed bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

TEMPERATURE = 0.1
CROP_AREA = (0.08, 1.0)


def make_view(image: tf.Tensor, seed: tf.Tensor, size: int, crop_area: tuple[float, float] = CROP_AREA) -> tf.Tensor:
    """Return one view (S, S, 3) of an image in [0, 1]."""
    box = tf.constant([[[0.0, 0.0, 1.0, 1.0]]])  # the whole image
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image), box, seed, aspect_ratio_range=(3 / 4, 4 / 3), area_range=crop_area
    )
    x = tf.image.resize(tf.slice(image, begin, extent), (size, size))
    x = tf.image.stateless_random_flip_left_right(x, seed + 1)
    if tf.random.stateless_uniform((), seed + 2) < 0.8:
        x = tf.image.stateless_random_brightness(x, 0.4, seed + 3)
        x = tf.image.stateless_random_contrast(x, 0.6, 1.4, seed + 4)
        x = tf.image.stateless_random_saturation(x, 0.6, 1.4, seed + 5)
        x = tf.image.stateless_random_hue(x, 0.1, seed + 6)
    if tf.random.stateless_uniform((), seed + 7) < 0.2:
        x = tf.repeat(tf.image.rgb_to_grayscale(x), 3, axis=-1)
    return tf.reshape(tf.clip_by_value(x, 0.0, 1.0), (size, size, 3))


def make_view_batches(
    images: np.ndarray, batch_size: int, size: int, crop_area: tuple[float, float] = CROP_AREA
) -> tf.data.Dataset:
    """Return an endless data set of batches (B, 2, S, S, 3), with two views of each image."""

    def make_two_views(count: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        x = tf.image.convert_image_dtype(image, tf.float32)
        return tf.stack([make_view(x, tf.stack([count, place]), size, crop_area) for place in (0, 100)])

    found = tf.data.Dataset.from_tensor_slices(images).shuffle(len(images), seed=0).repeat()
    found = found.enumerate().map(make_two_views, num_parallel_calls=tf.data.AUTOTUNE)
    return found.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def compute_loss(z: tf.Tensor, temperature: float = TEMPERATURE) -> tf.Tensor:
    """Return the mean NT-Xent loss of the projections z (2N, d), the outputs of the projection head for N images."""
    u = tf.math.l2_normalize(tf.cast(z, tf.float32), axis=1)
    count = tf.shape(u)[0]
    s = tf.matmul(u, u, transpose_b=True) / temperature - 1e9 * tf.eye(count)
    positive = tf.roll(tf.range(count), count // 2, axis=0)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(positive, s))


def build_keras_encoder(name: str, stem: str, size: int) -> tf.keras.Model:
    """Return Keras's own ResNet-50. For any other name, return this project's encoder, built from Keras's layers."""
    if (name, stem) == ("resnet50", "imagenet"):
        return tf.keras.applications.ResNet50(
            include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg"
        )
    from lowlevel_simclr.model import encoder, stock_layers

    def replace_layer(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
        return stock_layers.STOCK.get(type(layer), type(layer)).from_config(layer.get_config())

    return tf.keras.models.clone_model(encoder.build_encoder(name, stem, size), clone_function=replace_layer)


def prepare_step(
    name: str, stem: str, size: int, batch_size: int, widths: tuple[int, ...], images: np.ndarray, policy: str
) -> Callable[[], float]:
    """Return a function without arguments that trains for one step and returns the loss of the step.

    Args:
        name: the name of the encoder.
        stem: the stem (first layers) of the encoder: imagenet for large images, cifar for small ones.
        size: S, the pixels on a side of a view.
        batch_size: the number of images in a step.
        widths: the widths of the projection head's layers.
        images: the training images (n, H, W, 3) in uint8.
        policy: Keras's precision policy, float32 or mixed_bfloat16.
    """
    tf.keras.mixed_precision.set_global_policy(policy)
    f = build_keras_encoder(name, stem, size)
    layers = tf.keras.layers
    hidden = [layer for width in widths[:-1] for layer in (layers.Dense(width), layers.ReLU())]
    g = tf.keras.Sequential([tf.keras.Input((f.output_shape[-1],)), *hidden, layers.Dense(widths[-1])])
    optimizer = tf.keras.optimizers.SGD(0.1, momentum=0.9)
    stream = iter(make_view_batches(images, batch_size, size))

    @tf.function
    def train_step(views: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            z = g(f(tf.concat([views[:, 0], views[:, 1]], axis=0), training=True), training=True)
            loss = compute_loss(z)
        variables = f.trainable_variables + g.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return loss

    return lambda: float(train_step(next(stream)))
