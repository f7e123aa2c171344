"""Trains SimCLR for some minutes in plain TensorFlow: python -m bench.baselines.plain_race REQUEST.

`bench.learning.race` starts this program. REQUEST is a text in JSON (`race.py` lists its keys). Views, loss and encoder
are those of `plain_step.py`. REQUEST gives the training settings (the recipe): view size, batch size, temperature and
crop range. The optimizer is Keras's AdamW. Its learning rate first rises (warm-up), then falls like a cosine. The
program writes h, the output of the encoder, for the train and test images into a file. It prints the number of steps
and the seconds that it trained as JSON.
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
from lowlevel_simclr.model.encoder import give_other_size

WARMUP = 0.1  # the learning rate rises during this share of the training


def compute_rate(base: float, share: float) -> float:
    """Return the learning rate after this share (0 to 1) of the training."""
    falling = 0.5 * (1 + math.cos(math.pi * max(0.0, share - WARMUP) / (1 - WARMUP)))
    return base * max(min(share / WARMUP, falling), 1e-4)


def train(request: dict[str, Any], images: np.ndarray) -> tuple[tf.keras.Model, int]:
    """Train for the time or the number of steps in the request. Return the encoder and the number of steps."""
    recipe, layers = request["recipe"], tf.keras.layers
    tf.keras.utils.set_random_seed(request["seed"])
    if request["precision"] == "bfloat16":
        tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    f = plain_step.build_keras_encoder(recipe["encoder"], recipe["stem"], recipe["image_size"])
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
    """Resize the images to `side` pixels, and return their representations h (n, d)."""
    parts = []
    for first in range(0, len(images), 256):
        x = tf.image.convert_image_dtype(images[first : first + 256], tf.float32)
        x = tf.image.resize(x, (side, side), antialias=True)
        parts.append(tf.cast(f(x, training=False), tf.float32).numpy())
    return np.concatenate(parts)


def main() -> None:
    """Train, write the representations h of the images, and print the number of steps and the time."""
    request = json.loads(sys.argv[1])
    arrays = np.load(request["images"])
    f, done = train(request, arrays["train_images"])
    seconds = time.time() - request["began"]
    side = request["recipe"]["evaluation_size"]
    f = give_other_size(f, side)
    h: dict[str, Any] = {f"{split}_h": represent(f, arrays[f"{split}_images"], side) for split in ("train", "test")}
    np.savez(Path(request["out"]), **h)
    print(json.dumps({"steps": done, "seconds": seconds, "tensorflow": tf.__version__}))


if __name__ == "__main__":
    main()
