"""Exports the encoder as a SavedModel, for TensorFlow Serving and for programs in C++, Java and Go."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from lowlevel_simclr.evaluation.formats.form import Format
from lowlevel_simclr.evaluation.formats.network import Network, build_model, list_variables, make_function

READER = """
import tensorflow as tf
served = tf.saved_model.load(sys.argv[1])  # its functions need this object, which holds the weights
signature = served.signatures["serving_default"]

def represent(given):
    return {name: rows.numpy() for name, rows in signature(tf.constant(given)).items()}
"""

EXAMPLE = """\
import numpy as np
import tensorflow as tf

served = tf.saved_model.load(".")  # keep this object: its functions need its weights
h = served.signatures["serving_default"](tf.constant({given}))["h"]
"""


def write_saved_model(network: Network, folder: Path, weights: str) -> None:
    """Write `saved_model.pb` and `variables/`, with one signature, `serving_default`."""
    model = build_model(network)
    module = tf.Module()
    module.weights, module.compute = list_variables(model), make_function(model, network)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.compute})


SAVED_MODEL = Format("SavedModel", (), "", "tensorflow", write_saved_model, READER, EXAMPLE)
