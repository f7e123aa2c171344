"""Rebuilds a model from Keras's own layers, so that Keras can load and save it without this package."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from lowlevel_simclr.model.batch_norm import FusedBatchNorm
from lowlevel_simclr.model.convolution import Convolution
from lowlevel_simclr.model.max_pooling import MaxPooling

layers = tf.keras.layers

STOCK = {  # a dict from our layer to Keras's layer
    FusedBatchNorm: layers.BatchNormalization,
    Convolution: layers.Conv2D,
    MaxPooling: layers.MaxPooling2D,
}


def build_stock_twin(model: tf.keras.Model) -> tf.keras.Model:
    """Return a copy of an encoder or projection head, built from Keras's own layers in float32, with the same weights.

    Args:
        model: an encoder of `build_encoder` or a projection head of `build_projection_head`.

    Examples:
        >>> import tensorflow as tf
        >>> from lowlevel_simclr.model.projection import build_projection_head
        >>> from lowlevel_simclr.model.stock_layers import build_stock_twin
        >>> twin = build_stock_twin(build_projection_head(dim=8, widths=(4,), batch_norm="all"))
        >>> any(type(layer) is tf.keras.layers.BatchNormalization for layer in twin.layers)
        True
    """
    twin = build_in_stock_layers(model)
    twin.set_weights(model.get_weights())
    return twin


def build_in_stock_layers(model: tf.keras.Model, **changed: Any) -> tf.keras.Model:
    """Return the same model built from Keras's own layers in float32, with new weights.

    Args:
        model: an encoder of `build_encoder` or a projection head of `build_projection_head`.
        **changed: options to change in every convolution.
    """

    def build_stock_layer(layer: Any) -> Any:
        config = {**layer.get_config(), "dtype": "float32"}
        # The weights are set later. Keras 3.12 cannot load the HeNormal initializer of Keras 3.13.
        if "kernel_initializer" in config:
            config["kernel_initializer"] = "zeros"
        if isinstance(layer, layers.Conv2D):
            config |= changed
        return STOCK.get(type(layer), type(layer)).from_config(config)

    entry = tf.keras.Input(model.input_shape[1:], dtype="float32", name=model.layers[0].name)
    return tf.keras.models.clone_model(model, input_tensors=entry, clone_function=build_stock_layer)
