"""Settings for all tests.

The package is imported before TensorFlow, as in its programs. It decides whether TensorFlow uses oneDNN, and TensorFlow
reads this setting only once. If TensorFlow were imported first, the tests would compute float32 views in another way
than the programs on some processors: those without AVX-512 VNNI. TensorFlow is not imported at the top of this file:
with pytest-xdist, the process that only hands out the tests reads this file too, and the import takes seconds.

TF32, a shorter float format of GPUs, is off. With it, a GPU rounds the factors of products to 11 bits. So the ops that
are built from TensorFlow's own (stock ops) would be less precise than on a CPU.

The library hypothesis has no deadline. With a deadline, a test could fail on a slow machine.

After each test, the number type for training is set to float32 again. Training may change it: on processors that
compute bfloat16 fast, it chooses bfloat16. The next test would then use bfloat16 too.

No test may change the level of TensorFlow's log, because a later test in the same process may wait for a warning.
"""

import gc
from collections.abc import Iterator

import hypothesis
import pytest

import lowlevel_simclr as lowlevel_simclr

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_collection_finish() -> None:
    """Leave the modules and the tests out of every later garbage collection, because they stay until the end.

    Otherwise, the collector would visit all of them again and again while TensorFlow traces functions.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def without_tf32() -> None:
    """Turn TF32 off before the first test."""
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(False)


@pytest.fixture(autouse=True)
def float32_afterwards() -> Iterator[None]:
    """Set the number type for training to float32 after each test, because the test may have changed it."""
    yield
    from lowlevel_simclr.runtime import precision

    precision.set_precision("float32")


@pytest.fixture(autouse=True)
def unchanged_log_level() -> Iterator[None]:
    """Fail if the test, or a program that it calls, has changed the level of TensorFlow's log."""
    import tensorflow as tf

    logger = tf.get_logger()
    level = logger.level
    yield
    changed = logger.level
    logger.setLevel(level)
    assert changed == level, f"The level of TensorFlow's log was {level} before the test and is {changed} now."
