"""Writes findings (the errors of compared results, and their bounds) as text."""

from __future__ import annotations

from collections.abc import Sequence

from lowlevel_simclr.verification.bound import Finding


def write_table(findings: Sequence[Finding]) -> str:
    """Return a table with a line for each quantity of each group of similar cases.

    The line shows the finding whose error is the largest share of its bound.

    Errors and bounds are in units of the quantity's size (`verification.bound`).
    """
    lines = [
        f"{'rows':<11}{'type':<10}{'mode':<7}{'quantity':<14}{'cases':>5}  {'error':>9}  {'bound':>9}  {'used':>6}"
    ]
    groups: dict[tuple[str, str, str, str], list[Finding]] = {}
    for finding in findings:
        case = finding.case
        groups.setdefault((case.rows, case.dtype, case.mode, finding.quantity), []).append(finding)
    for (rows, dtype, mode, quantity), group in sorted(groups.items()):
        worst = max(group, key=_compute_used_share)
        lines.append(
            f"{rows:<11}{dtype:<10}{mode:<7}{quantity:<14}{len(group):>5}  {worst.error:>9.2e}  {worst.bound:>9.2e}  "
            f"{_compute_used_share(worst):>6.0%}"
        )
    return "\n".join(lines)


def write_verdict(findings: Sequence[Finding]) -> str:
    """Return one line that says whether all comparisons passed, followed by a line for each that failed."""
    failed = [finding for finding in findings if not finding.holds]
    if not failed:
        return f"All {len(findings)} comparisons passed."
    rows = (
        f"  {finding.quantity} of {finding.case}: error {finding.error:.2e}, at most {finding.bound:.2e} is allowed"
        for finding in failed
    )
    return "\n".join([f"{len(failed)} of {len(findings)} comparisons failed:", *rows])


def _compute_used_share(finding: Finding) -> float:
    """Return error / bound, at most 1e6. Return 1e6 also if the bound is 0 or NaN."""
    if finding.error == 0:
        return 0.0
    return min(finding.error / finding.bound, 1e6) if finding.bound > 0 else 1e6
