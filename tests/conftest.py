"""Before any test: the package is imported ahead of TensorFlow, as its programs do it.

TensorFlow reads once whether to use oneDNN. A test that holds this process against one of ours would otherwise, on
processors without AVX-512 VNNI, hold two ways to compute float32 views against one another.

On a GPU the stock forms are what they are on a CPU: their factors are not rounded to TF32's 11 bits.

And no test fails by wall time, which hypothesis would look at where it is not told otherwise.

After each test Keras makes float32 layers again: a test that trains leaves the precision of its run, which is
bfloat16 on processors made for it.
"""

from collections.abc import Iterator

import hypothesis
import pytest

import lowlevel_simclr as lowlevel_simclr

import tensorflow as tf  # isort: skip

from lowlevel_simclr.runtime import precision

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
tf.config.experimental.enable_tensor_float_32_execution(False)


@pytest.fixture(autouse=True)
def float32_afterwards() -> Iterator[None]:
    """What a test left of its run's precision is gone."""
    yield
    precision.set_precision("float32")
