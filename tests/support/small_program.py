"""Python code that starts a program of this package with few images and a narrow encoder, so that it takes seconds."""

from __future__ import annotations

# The code for `python -c`. Its arguments are the name of the program and the program's own arguments.
PROGRAM = """
import importlib, sys
program = importlib.import_module("lowlevel_simclr." + sys.argv[1])
def shrink():
    from lowlevel_simclr.data import catalog
    from lowlevel_simclr.model import encoder
    catalog.SHAPES_TRAIN, catalog.SHAPES_TEST = 200, 100
    encoder.BASIC["resnet20"] = encoder.Basic((1, 1, 1), 8, projects=False)
from lowlevel_simclr.api import program as around
start = around.start_tensorflow
around.start_tensorflow = lambda: (start(), shrink())
sys.exit(program.main(sys.argv[2:]))
"""
