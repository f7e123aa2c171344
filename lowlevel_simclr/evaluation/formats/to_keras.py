"""Exports the encoder as `encoder.keras`, and as the three files that Keras 3 loads from Hugging Face (`hf://`)."""

from __future__ import annotations

import zipfile
from pathlib import Path

from lowlevel_simclr.evaluation.export import ENCODER_FILE, save_encoder
from lowlevel_simclr.evaluation.formats.form import Format
from lowlevel_simclr.evaluation.formats.network import Network, build_model
from lowlevel_simclr.runtime.keras import find_keras_generation

READER = """
import tensorflow as tf
model = tf.keras.models.load_model(sys.argv[1] + "/encoder.keras", compile=False)

def represent(given):
    found = model.predict(given, batch_size=16, verbose=0)
    return dict(found) if isinstance(found, dict) else {"h": found}
"""

EXAMPLE = """\
import numpy as np
import tensorflow as tf

encoder = tf.keras.models.load_model("encoder.keras")
h = encoder.predict({given}, verbose=0)
"""


def write_keras(network: Network, folder: Path, weights: str) -> None:
    """Write `encoder.keras`.

    With Keras 3, also unpack the three files in it, because Keras loads those from `hf://`.
    """
    path = save_encoder(folder, build_model(network))
    if find_keras_generation() == 3:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)


KERAS = Format("Keras", (), "", "keras", write_keras, READER, EXAMPLE)
assert ENCODER_FILE in READER and ENCODER_FILE in EXAMPLE
