"""Settings for all tests.

The package is imported before TensorFlow, as its programs do, because TensorFlow reads only once whether to use oneDNN.
Otherwise, on processors without AVX-512 VNNI, a test that compares this process with one of our programs would compare
two ways to compute float32 views.

On a GPU, TF32 is off. So the stock forms compute there as on a CPU, without rounding their factors to 11 bits.

hypothesis has no deadline, so no test fails because the machine is slow.

After each test the precision is float32 again. A test that trains leaves the precision of its run behind, which is
bfloat16 on processors that compute it fast.
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
    """Restore float32, because a test may have left the precision of its run."""
    yield
    precision.set_precision("float32")
