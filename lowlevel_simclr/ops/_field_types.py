"""The types of the fields of `ViewParams` that the native ops expect."""

from __future__ import annotations

import tensorflow as tf

from lowlevel_simclr.contract.view_params import ViewParams

FIELD_TYPES = ViewParams(
    box=tf.int32,
    flip=tf.bool,
    brightness=tf.float32,
    brightness_shift=tf.float32,
    contrast=tf.float32,
    saturation=tf.float32,
    hue=tf.float32,
    order=tf.int32,
    clip=tf.bool,
    grey=tf.bool,
    blur_sigma=tf.float32,
)
