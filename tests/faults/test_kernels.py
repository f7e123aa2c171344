"""Tests that the cases of the kernels' test drivers are counted from the printed output."""

from __future__ import annotations

import pytest

from tests.faults import kernels

PLAIN = "nt_xent:\n120 cases, 0 wrong\nmake_views:\n300 cases, 2 wrong\n"
FUZZER = (
    "nt_xent:\nINFO: Seed: 1\n#2\tINITED cov: 10\nDone 812 runs in 601 second(s)\n"
    "make_views:\n#2\tINITED cov: 10\nDone 99 runs in 601 second(s)\n"
)


def test_cases_are_counted() -> None:
    assert kernels.count_cases(PLAIN) == ({"nt_xent": 120, "make_views": 300}, 2)
    assert kernels.count_cases(FUZZER) == ({"nt_xent": 812, "make_views": 99}, 0)
    assert kernels.count_cases("nt_xent:\nERROR: AddressSanitizer: heap-buffer-overflow\n") == ({}, 0)


@pytest.mark.parametrize(
    ("printed", "code", "right"),
    [
        (PLAIN.replace("2 wrong", "0 wrong"), 0, True),
        (PLAIN, 0, False),
        (FUZZER, 0, True),
        (FUZZER, 1, False),
        ("nt_xent:\n120 cases, 0 wrong\nmake_views:\n", 0, False),  # the second driver printed nothing
    ],
)
def test_a_wrong_case_or_a_crash_is_noticed(
    monkeypatch: pytest.MonkeyPatch, printed: str, code: int, right: bool
) -> None:
    done = kernels.subprocess.CompletedProcess([], code, printed)
    monkeypatch.setattr(kernels.subprocess, "run", lambda *given, **more: done)
    assert kernels.run_drivers("none", 1)[1] == right
