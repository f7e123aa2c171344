"""Tests the C++ ops with 1, 2 and 7 threads, and with older instruction sets such as AVX2.

Each setting is tested in a new process, because the library reads it only when it is loaded. A process tests all ops,
because importing TensorFlow takes seconds.
"""

from __future__ import annotations

import pytest

from lowlevel_simclr.ops import _library
from tests.support.digests import digest_lars_update, digest_nt_xent, digest_resize, digest_views
from tests.support.other_process import output_of

DIGESTS = """
from tests.support import digests
print(digests.digest_nt_xent(), digests.digest_lars_update(), digests.digest_views())
"""
CHECK = """
from lowlevel_simclr import ops
from lowlevel_simclr.ops import _library
from lowlevel_simclr.verification.every_op import judge_every_op
from tests.support.digests import digest_resize
print(digest_resize())
findings = judge_every_op(ops, ("eager",))
cases = {type(found.case).__name__ for found in findings}
print(_library.find_instruction_set(), len(findings), len(cases), [found for found in findings if not found.holds][:3])
"""


def test_the_same_bits_with_any_number_of_threads() -> None:
    here = [digest_nt_xent(), digest_lars_update(), digest_views()]
    for threads in ("1", "7"):
        assert output_of(DIGESTS, LOWLEVEL_SIMCLR_THREADS=threads).split() == here, f"{threads} threads"


@pytest.mark.parametrize("instruction_set", ["baseline", pytest.param("avx2", marks=pytest.mark.slow)])
def test_the_lower_instruction_sets_pass_the_check(instruction_set: str) -> None:
    if instruction_set == _library.find_instruction_set():
        pytest.skip(f"all other tests on this machine already use {instruction_set}")
    resized, checked = output_of(CHECK, LOWLEVEL_SIMCLR_ISA=instruction_set).splitlines()
    assert resized == digest_resize()
    used, findings, kinds, wrong = checked.split(maxsplit=3)
    assert wrong == "[]" and int(findings) > 100
    assert int(kinds) == 3  # three ops: the loss, the views and the optimizer's update
    assert used in (instruction_set, "baseline")  # a processor without AVX2 uses the baseline
