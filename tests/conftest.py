"""Settings for all tests.

The package is imported before TensorFlow, as in its programs. It turns on oneDNN, a library of fast CPU kernels, and
TensorFlow reads this setting only when it is imported. If TensorFlow were imported first, it would not use oneDNN on
processors without AVX-512 VNNI. Then the tests would compute other rounding errors than the programs.

TF32, a shorter float format of GPUs, is off. With it, a GPU rounds the factors of products to 11 bits. So the ops that
are built from TensorFlow's own (stock ops) would be less precise than on a CPU.

The library hypothesis has no deadline. With a deadline, a test could fail on a slow machine.

After each test, the number type for training is set to float32 again. Training may change it: on processors that
compute bfloat16 fast, it chooses bfloat16. The next test would then use bfloat16 too.

No test may change the level of TensorFlow's log, because a later test in the same process may wait for a warning.
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
    """Set the number type for training to float32 after each test, because the test may have changed it."""
    yield
    precision.set_precision("float32")


@pytest.fixture(autouse=True)
def unchanged_log_level() -> Iterator[None]:
    """Fail if the test, or a program that it calls, has changed the level of TensorFlow's log."""
    logger = tf.get_logger()
    level = logger.level
    yield
    changed = logger.level
    logger.setLevel(level)
    assert changed == level, f"The level of TensorFlow's log was {level} before the test and is {changed} now."
