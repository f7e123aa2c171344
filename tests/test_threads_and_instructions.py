"""Every native op with other numbers of threads and on lower instruction sets, each in a process of its own.

Both are read once, when the library is loaded. A process imports TensorFlow for seconds, so one serves every op.
"""

from __future__ import annotations

import pytest
from other_process import output_of

from lowlevel_simclr.ops import _library

DIGESTS = """
import test_kernels_nt_xent, test_lars_update, test_make_views_native
print(test_kernels_nt_xent.bits(), test_lars_update.bits(), test_make_views_native.bits())
"""
CHECKS = """
from lowlevel_simclr import check, ops, view_cases
from lowlevel_simclr.ops import _library
losses = check.check(ops, ("eager",))
views = [found for case in view_cases.view_cases(("eager",)) for found in view_cases.judge_views(case, ops)]
wrong = [found for found in losses if not found.holds] + [found for found in views if not found.error <= found.bound]
print(_library.instruction_set(), len(losses), len(views), wrong[:3])
"""


def test_the_same_bits_with_any_number_of_threads() -> None:
    found = [output_of(DIGESTS, LOWLEVEL_SIMCLR_THREADS=threads).split() for threads in ("1", "2", "7")]
    assert len(found[0]) == 3
    assert found == [found[0]] * 3


@pytest.mark.parametrize("instruction_set", ["baseline", "avx2"])
def test_the_lower_instruction_sets_pass_the_check(instruction_set: str) -> None:
    if instruction_set == _library.instruction_set():
        pytest.skip(f"{instruction_set} is what every other test runs here")
    used, losses, views, wrong = output_of(CHECKS, LOWLEVEL_SIMCLR_ISA=instruction_set).split(maxsplit=3)
    assert wrong == "[]" and int(losses) > 10 and int(views) > 10
    assert used in (instruction_set, "baseline")  # a processor without AVX2 runs the baseline
