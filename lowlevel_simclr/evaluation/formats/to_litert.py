"""Exports the encoder as a LiteRT file, for phones and small machines. LiteRT is the new name of TensorFlow Lite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from lowlevel_simclr.evaluation.formats.form import Format
from lowlevel_simclr.evaluation.formats.network import Network, build_model, make_function, name_input

FILE = "encoder.tflite"

READER = """
from ai_edge_litert.interpreter import Interpreter
run = Interpreter(model_path=sys.argv[1] + "/encoder.tflite").get_signature_runner("serving_default")

def represent(given):
    return run(**{next(iter(run.get_input_details())): given})
"""

EXAMPLE = """\
import numpy as np
from ai_edge_litert.interpreter import Interpreter

run = Interpreter(model_path="encoder.tflite").get_signature_runner("serving_default")
h = run({name}={given})["h"]
"""


def write_litert(network: Network, folder: Path, weights: str) -> None:
    """Write `encoder.tflite`.

    Args:
        network: what is exported.
        folder: the folder to write into.
        weights: "float32", "float16" (half the size), or "int8" (a quarter of the size; products are computed with
            integers).
    """
    function = _freeze(make_function(build_model(network), network), network)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], tf.Module())
    if weights != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    (folder / FILE).write_bytes(converter.convert())


def _freeze(function: Any, network: Network) -> Any:
    """Return a function whose weights are constants.

    If the weights are variables of Keras 3, TensorFlow 2.21 leaves them out of the file, and the file computes NaN.
    """
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())

    def name_outputs(given: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(zip(network.output_names, frozen(given)))

    return name_input(name_outputs, network)


LITERT = Format("LiteRT", ("ai_edge_litert",), "ai-edge-litert", "litert", write_litert, READER, EXAMPLE)
