"""Exports the encoder as an ONNX file, for onnxruntime and every other program that reads ONNX."""

from __future__ import annotations

import logging
from pathlib import Path

from lowlevel_simclr.evaluation.formats.form import Format
from lowlevel_simclr.evaluation.formats.network import Network, build_model, make_function

FILE = "encoder.onnx"
OPSET = 17  # version of ONNX's operators; onnxruntime 1.12 (2022) and later read it

READER = """
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1] + "/encoder.onnx", providers=["CPUExecutionProvider"])

def represent(given):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: given})))
"""

EXAMPLE = """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("encoder.onnx")
(h,) = session.run(["h"], {{"{name}": {given}}})
"""


def write_onnx(network: Network, folder: Path, weights: str) -> None:
    """Write `encoder.onnx`."""
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.WARNING)
    function = make_function(build_model(network), network)
    tf2onnx.convert.from_function(
        function, input_signature=[network.signature], opset=OPSET, output_path=str(folder / FILE)
    )


ONNX = Format(
    "ONNX", ("tf2onnx", "onnx", "onnxruntime"), "tf2onnx onnx onnxruntime", "onnx", write_onnx, READER, EXAMPLE
)
