"""Settings for all tests.

The package is imported before TensorFlow. Its programs do the same. The package sets whether TensorFlow uses oneDNN,
and TensorFlow reads this setting only once. In another order, processors without AVX-512 VNNI would compute float32
views in another way than in the programs.

On a GPU, TF32 is off. So the stock ops do not round factors to 11 bits and compute as precisely as on a CPU.

hypothesis has no deadline, so no test fails because the machine is slow.

After each test the precision is set to float32 again. Otherwise the precision of a test's run would remain for the next
test. A run uses bfloat16 on processors that compute bfloat16 fast.
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
