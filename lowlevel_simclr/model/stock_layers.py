"""A model of ours rebuilt in Keras's own layers, so that any Keras can load and save it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lowlevel_simclr.model.batch_norm import FusedBatchNorm
from lowlevel_simclr.model.convolution import Convolution
from lowlevel_simclr.model.max_pooling import MaxPooling

layers = tf.keras.layers

STOCK = {  # our layer -> Keras's
    FusedBatchNorm: layers.BatchNormalization,
    Convolution: layers.Conv2D,
    MaxPooling: layers.MaxPooling2D,
}


def build_stock_twin(model: tf.keras.Model) -> tf.keras.Model:
    """The same encoder or head, weights included, in float32 and in layers that any Keras has."""
    twin = build_in_stock_layers(model)
    twin.set_weights(model.get_weights())
    return twin


def build_in_stock_layers(model: tf.keras.Model, **changed: Any) -> tf.keras.Model:
    """The same layers as any Keras has them, float32, with weights of their own; `changed` options of convolutions."""

    def stock(layer: Any) -> Any:
        config = {**layer.get_config(), "dtype": "float32"}
        if isinstance(layer, layers.Conv2D):
            config |= changed
        return STOCK.get(type(layer), type(layer)).from_config(config)

    entry = tf.keras.Input(model.input_shape[1:], dtype="float32", name=model.layers[0].name)
    return tf.keras.models.clone_model(model, input_tensors=entry, clone_function=stock)
