"""Settings for all tests.

The package is imported before TensorFlow, as in its programs. It sets whether TensorFlow uses oneDNN, and TensorFlow
reads this setting only once. Without this order, some processors (those without AVX-512 VNNI) would compute float32
views here in another way than in our programs.

On a GPU, TF32 is off. So the stock ops compute there as on a CPU, without rounding factors to 11 bits.

hypothesis has no deadline, so no test fails because the machine is slow.

After each test the precision is set to float32 again. A test that trains would otherwise leave the precision of its run
behind. This is bfloat16 on processors that compute it fast.
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
    """Set the precision to float32 after each test, because the test may have trained in another precision."""
    yield
    precision.set_precision("float32")
