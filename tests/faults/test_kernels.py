"""Tests kernels.py, which runs C++ test programs (drivers) and counts their cases from what they print."""

from __future__ import annotations

from typing import Any

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
        ("{}:\n120 cases, 0 wrong\n", 0, True),
        ("{}:\n120 cases, 2 wrong\n", 0, False),
        ("{}:\nDone 812 runs in 601 second(s)\n", 0, True),
        ("{}:\nDone 812 runs in 601 second(s)\n", 1, False),
        ("{}:\n", 0, False),  # the driver printed nothing more
    ],
)
def test_a_wrong_case_or_a_crash_is_noticed(
    monkeypatch: pytest.MonkeyPatch, printed: str, code: int, right: bool
) -> None:
    """Test one driver that prints `printed` and ends with the exit code `code`. All other drivers succeed."""

    def run(command: list[str], env: dict[str, str], **more: Any) -> kernels.subprocess.CompletedProcess[str]:
        driver = env["DRIVER"]
        if driver == kernels.DRIVERS[1]:
            return kernels.subprocess.CompletedProcess(command, code, printed.format(driver))
        return kernels.subprocess.CompletedProcess(command, 0, f"{driver}:\n120 cases, 0 wrong\n")

    monkeypatch.setattr(kernels.subprocess, "run", run)
    assert kernels.run_drivers("none", 1)[1] == right


def test_every_driver_is_known() -> None:
    assert kernels.DRIVERS == ["lars_update", "make_views", "nt_xent", "resize"]
