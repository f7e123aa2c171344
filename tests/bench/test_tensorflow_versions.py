"""Tests the table of TensorFlow releases with which this package works.

Slow tests install a release and run the programs with it.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

from bench.report import tensorflow_versions as versions

GOOD = versions.Proof("tensorflow-cpu 2.21.0", "479 comparisons, XLA included", "works", "works", "")
REFUSED = versions.Proof("tensorflow-cpu 2.16.2", "331 comparisons, without XLA", "refuses", "refuses", "No entry.")


def test_a_release_is_right_if_all_works_or_all_is_refused_with_a_sentence() -> None:
    assert GOOD.is_right and GOOD.works
    assert REFUSED.is_right and not REFUSED.works
    for wrong in (
        GOOD._replace(check="fails"),
        GOOD._replace(check="331 comparisons, without XLA"),
        GOOD._replace(step="fails"),
        GOOD._replace(keras="refuses"),
        REFUSED._replace(said=""),
        REFUSED._replace(step="fails"),
    ):
        assert not wrong.is_right and not wrong.works


def test_what_programs_print_is_understood() -> None:
    passed = "inside XLA      checked too\n...\nAll 479 comparisons passed.\n"
    assert versions.describe_check(0, passed) == GOOD.check
    assert versions.describe_check(0, passed.replace("checked too", "not checked. Why.")) == (
        "479 comparisons, without XLA"
    )
    assert versions.describe_check(1, passed) == versions.describe_check(0, "") == "fails"
    refusal = "error: The native ops do not work under --xla on here. It is old. Use --ops stock, install ..."
    assert versions.describe_program(2, refusal) == "refuses" and versions.find_refusal(refusal) == "It is old."
    assert versions.describe_program(1, "XlaRouteError: XLA cannot call the native ops, so") == "refuses"
    assert versions.describe_program(1, "Segmentation fault") == "fails"
    assert versions.describe_program(0, "") == "works"


def test_a_row_replaces_that_of_the_same_release_and_rows_are_in_order(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n<!-- {versions.NAME} -->\n<!-- /{versions.NAME} -->\nafter\n")
    later = GOOD._replace(release="tensorflow-cpu 2.22.0rc0")
    for proof in (later, GOOD._replace(step="fails"), REFUSED, GOOD):
        versions.write_row(proof, page)
    rows = [proof.format_row() for proof in (REFUSED, GOOD, later)]
    lines = page.read_text().splitlines()
    assert lines == [
        "before",
        f"<!-- {versions.NAME} -->",
        *versions.HEAD,
        *rows,
        f"<!-- /{versions.NAME} -->",
        "after",
    ]


def test_the_page_has_a_row_for_both_wheels_of_each_release_and_all_are_right() -> None:
    text = versions.PAGE.read_text(encoding="utf-8")
    for minor in range(18, 23):
        for wheel in ("tensorflow", "tensorflow-cpu"):
            (row,) = [line for line in text.splitlines() if line.startswith(f"| {wheel} 2.{minor}.")]
            assert versions.Proof(*(cell.strip() for cell in row.split("|")[1:-1])).works, row


@pytest.mark.slow
@pytest.mark.parametrize("version", ["2.18.1", "2.19.1", "2.20.0"])
@pytest.mark.parametrize("wheel", ["tensorflow", "tensorflow-cpu"])
def test_xla_calls_the_library_in_this_release(wheel: str, version: str, tmp_path: Path) -> None:
    proof = prove(f"{wheel}=={version}", tmp_path)
    versions.write_row(proof)
    assert proof.works, proof


@pytest.mark.slow
@pytest.mark.parametrize("version", ["2.16.2", "2.17.1"])
def test_this_release_refuses_with_a_sentence(version: str, tmp_path: Path) -> None:
    proof = prove(f"tensorflow-cpu=={version}", tmp_path)
    versions.write_row(proof)
    assert proof.is_right and not proof.works, proof


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_newest_release_candidate_is_watched(tmp_path: Path) -> None:
    """Test the newest release candidate of TensorFlow. If it does not work, the test prints a warning and passes.

    The programs call the native library through TensorFlow's private function call_module, which a new release may
    lack.
    """
    proof = prove("tensorflow-cpu", tmp_path, before_release=True)
    assert proof.release.startswith("tensorflow-cpu 2."), "the release candidate cannot be imported"
    if not proof.works:
        warnings.warn(f"XLA cannot call the library in {proof}", stacklevel=1)


def prove(requirement: str, folder: Path, before_release: bool = False) -> versions.Proof:
    """Install a TensorFlow release and run the programs with it. Skip the test if there is no wheel for this Python."""
    if sys.version_info >= (3, 13):
        pytest.skip("releases before 2.20 have no wheels for this Python")
    return versions.prove(requirement, versions.install(requirement, folder / "environment", before_release), folder)
