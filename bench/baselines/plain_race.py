"""Trains the plain TensorFlow program for some minutes: python -m bench.baselines.plain_race REQUEST.

`bench.learning.race` starts it. REQUEST is JSON (`race.py` lists its keys). Views, loss and encoder are those of
`plain_step.py`. The recipe is ours: view size, batch, temperature, crop range, and Keras's AdamW with a warm-up and a
cosine over the time. The program writes h of both splits into a file, and prints steps and seconds as JSON.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bench.baselines import plain_step

WARMUP = 0.1  # share of the training


def compute_rate(base: float, share: float) -> float:
    """Return the learning rate at a share of the training."""
    falling = 0.5 * (1 + math.cos(math.pi * max(0.0, share - WARMUP) / (1 - WARMUP)))
    return base * max(min(share / WARMUP, falling), 1e-4)


def train(request: dict[str, Any], images: np.ndarray) -> tuple[tf.keras.Model, int]:
    """Train until the time is over, or for the steps of the request. Return the encoder and the number of steps."""
    recipe, layers = request["recipe"], tf.keras.layers
    tf.keras.utils.set_random_seed(request["seed"])
    if request["precision"] == "bfloat16":
        tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    f = plain_step.build_keras_encoder(recipe["encoder"], "cifar", recipe["image_size"])
    *hidden, last = recipe["projection_widths"]
    inner = [layer for width in hidden for layer in (layers.Dense(width), layers.ReLU())]
    g = tf.keras.Sequential([tf.keras.Input((f.output_shape[-1],)), *inner, layers.Dense(last)])
    optimizer = tf.keras.optimizers.AdamW(recipe["learning_rate"], weight_decay=1e-4)
    stream = plain_step.make_view_batches(
        images, recipe["batch_size"], recipe["image_size"], (recipe["smallest_crop"], 1.0)
    )

    @tf.function
    def train_step(views: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            z = g(f(tf.concat([views[:, 0], views[:, 1]], axis=0), training=True), training=True)
            loss = plain_step.compute_loss(z, recipe["temperature"])
        variables = f.trainable_variables + g.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return loss

    done = 0
    for views in stream:
        steps = request["steps"]
        share = done / steps if steps else (time.time() - request["began"]) / request["seconds"]
        if share >= 1:
            break
        optimizer.learning_rate.assign(compute_rate(recipe["learning_rate"], share))
        train_step(views)
        done += 1
    return f, done


def represent(f: tf.keras.Model, images: np.ndarray, side: int) -> np.ndarray:
    """Return h (n, d) of images, resized to `side`."""
    parts = []
    for first in range(0, len(images), 256):
        x = tf.image.convert_image_dtype(images[first : first + 256], tf.float32)
        x = tf.image.resize(x, (side, side), antialias=True)
        parts.append(tf.cast(f(x, training=False), tf.float32).numpy())
    return np.concatenate(parts)


def main() -> None:
    """Train and write h."""
    request = json.loads(sys.argv[1])
    arrays = np.load(request["images"])
    f, done = train(request, arrays["train_images"])
    seconds = time.time() - request["began"]
    side = request["recipe"]["image_size"]
    h: dict[str, Any] = {f"{split}_h": represent(f, arrays[f"{split}_images"], side) for split in ("train", "test")}
    np.savez(Path(request["out"]), **h)
    print(json.dumps({"steps": done, "seconds": seconds, "tensorflow": tf.__version__}))


if __name__ == "__main__":
    main()
