"""Tests that the log lines which TensorFlow prints when it starts are hidden, and all others are shown.

If the program crashes, the hidden lines must be shown too.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lowlevel_simclr.runtime.start_up_lines import LEVEL, is_harmless
from tests.support.other_process import ROOT

CUDA_STUB = "I0000 00:00:1796032077.504688   17231 cudart_stub.cc:31] Could not find cuda drivers on your machine."
DROPPED = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    CUDA_STUB,
    "2026-11-30 09:49:02.170539: I tensorflow/core/util/port.cc:113] oneDNN custom operations are on.",
    "To enable the following instructions: AVX2 AVX512F, in other operations, rebuild TensorFlow",
    "2026-11-30 09:48:53.257079: E external/local_xla/xla/stream_executor/cuda/cuda_dnn.cc:9261] Unable to register "
    "cuDNN factory: Attempting to register factory for plugin cuDNN when one has already been registered",
    "2026-11-30 09:49:04.427089: W tensorflow/compiler/tf2tensorrt/utils/py_utils.cc:38] TF-TRT Warning",
    "E0000 00:00:1796032084.745037   17231 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error",
    "E0000 00:00:1796032047.974656   16635 util.cc:131] oneDNN supports DT_HALF only on platforms with AVX-512. "
    "Falling back to the default Eigen-based implementation if present.",
]
DROPPED += [
    "loc(\"-\":1:196): error: 'stablehlo.custom_call' op attribute 'api_version' failed to satisfy constraint",
    "2026-11-30 10:55:18.814472: E tensorflow/compiler/tf2xla/graph_compiler.cc:153] Executor failed to create kernel. "
    "INVALID_ARGUMENT: Cannot deserialize computation",
    "\t [[{{node XlaCallModule}}]]",
]
KEPT = [
    "Traceback (most recent call last):",
    "E0000 00:00:1796032084.745037   17231 pjrt.cc:52] out of memory",
    "F0000 00:00:1796032084.745037   17231 pjrt.cc:52] check failed",
    "2026-11-30 09:49:02.170539: F tensorflow/core/platform/cpu_feature_guard.cc:37] The TensorFlow library was "
    "compiled to use AVX instructions, but these aren't available on your machine.",
    "UserWarning: I0000 is no level here",
    "",
]


@pytest.mark.parametrize("line", DROPPED)
def test_a_start_up_line_is_harmless(line: str) -> None:
    assert is_harmless(line)


@pytest.mark.parametrize("line", KEPT)
def test_every_other_line_is_kept(line: str) -> None:
    assert not is_harmless(line)


def test_a_warning_is_kept_where_the_user_asked_for_warnings() -> None:
    line = "W0000 00:00:1796032077.504688   17231 file.cc:31] something"
    assert is_harmless(line, 2) and not is_harmless(line, 1)
    assert is_harmless(CUDA_STUB, 1)


def errors_of(block: str, level: str | None = None, wanted: int = 0) -> list[str]:
    """Run Python code in a new process that hides start-up lines. Return the lines that it writes to standard error."""
    program = (
        "import os, sys\n"
        "from lowlevel_simclr.runtime.start_up_lines import hide_start_up_lines\n"
        "def write(line): os.write(2, line.encode() + b'\\n')\n"
        f"with hide_start_up_lines():\n    {block}\n"
        "write('after')"
    )
    environment = {name: value for name, value in os.environ.items() if name != LEVEL}
    environment |= {LEVEL: level} if level else {}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == wanted, done.stderr
    return done.stderr.splitlines()


def test_the_block_writes_what_is_not_harmless_and_later_lines_are_as_they_were() -> None:
    block = f"write({CUDA_STUB!r}); print('one', file=sys.stderr); write({CUDA_STUB!r}); write('two')"
    assert errors_of(block) == ["one", "two", "after"]
    assert errors_of(block, level="0") == [CUDA_STUB, "one", CUDA_STUB, "two", "after"]
    assert errors_of("write(os.environ['TF_CPP_MIN_LOG_LEVEL'])") == ["2", "after"]
    assert errors_of("write(os.environ['TF_CPP_MIN_LOG_LEVEL'])", level="1") == ["1", "after"]


def test_a_block_that_raises_shows_every_line_and_its_error() -> None:
    lines = errors_of(f"write({CUDA_STUB!r}); raise ImportError('no library')", wanted=1)
    assert CUDA_STUB in lines and lines[-1] == "ImportError: no library" and "after" not in lines


def test_a_crash_shows_every_line() -> None:
    lines = errors_of(f"write({CUDA_STUB!r}); write('fatal'); os.abort()", wanted=-6)
    assert lines == ["fatal", CUDA_STUB]


def test_a_flood_of_lines_neither_blocks_nor_is_kept_whole() -> None:
    lines = errors_of(f"[write({CUDA_STUB!r}) for _ in range(3000)]")
    assert lines == [CUDA_STUB] * 2000 + ["after"]
