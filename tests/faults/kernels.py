"""Runs the C++ kernels with random inputs (cases) under a sanitizer or libFuzzer, and stores the number of cases.

    python -m tests.faults.kernels address 60 --out FILE      like kernels/sanitize.sh address 60
    python -m tests.faults.kernels fuzzer 600 --out FILE      libFuzzer; needs clang++

The C++ programs that call the kernels are test drivers. The table in docs/security.md shows the numbers, next to those
of tests/faults/campaign.py.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.faults.record import read_whole, write_whole

KERNELS = Path(__file__).parents[2] / "kernels"
SCRIPT = KERNELS / "sanitize.sh"
DRIVERS = sorted(path.parent.name for path in KERNELS.glob("*/*_test_driver.cc") if path.parent.name != "glue")
KINDS = ("address", "undefined", "thread", "none", "fuzzer")
DRIVER = re.compile(r"^(\w+):$", re.MULTILINE)  # kernels/sanitize.sh prints the name of each driver before its output
CASES = re.compile(r"^(\d+) cases, (\d+) wrong$", re.MULTILINE)
FUZZED = re.compile(r"^Done (\d+) runs in \d+ second", re.MULTILINE)


def run_drivers(kind: str, seconds: int) -> tuple[dict[str, int], bool, str]:
    """Run all drivers at the same time.

    Args:
        kind: the sanitizer, or "fuzzer": one of KINDS.
        seconds: the number of seconds for which each driver tries cases.

    Returns:
        The number of cases for each driver, whether all drivers succeeded, and the output of all drivers.
    """
    environment = {**os.environ, **({"CXX": "clang++"} if kind == "fuzzer" else {})}

    def run_one(driver: str) -> subprocess.CompletedProcess[str]:
        chosen = {**environment, "DRIVER": driver}
        command = [str(SCRIPT), kind, str(seconds)]
        return subprocess.run(command, env=chosen, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    with ThreadPoolExecutor(len(DRIVERS)) as pool:
        done = list(pool.map(run_one, DRIVERS))
    printed = "".join(each.stdout for each in done)
    cases, wrong = count_cases(printed)
    ended = all(each.returncode == 0 for each in done)
    return cases, ended and not wrong and sorted(cases) == DRIVERS, printed


def count_cases(printed: str) -> tuple[dict[str, int], int]:
    """Read from the output of the drivers how many cases each driver tried, and how many cases were wrong in all."""
    parts = DRIVER.split(printed)
    cases, wrong = {}, 0
    for name, text in zip(parts[1::2], parts[2::2]):
        for number, bad in CASES.findall(text):
            cases[name], wrong = int(number), wrong + int(bad)
        for number in FUZZED.findall(text):
            cases[name] = int(number)
    return cases, wrong


def main() -> int:
    """Run the drivers, store the counts, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("seconds", type=int, help="the time for which each driver tries cases")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file of tests/faults/campaign.py")
    given = parser.parse_args()
    cases, right, printed = run_drivers(given.kind, given.seconds)
    if not cases:  # the drivers could not be built, so there is nothing to store
        print(printed)
        return 1
    found: dict[str, Any] = {"seconds": given.seconds, "cases": cases, "right": right}
    whole = read_whole(given.out)
    write_whole(given.out, {**whole, "kernels": {**whole.get("kernels", {}), given.kind: found}})
    print(f"{given.kind}: {found}" if right else printed)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
