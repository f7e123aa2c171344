"""python -m lowlevel_simclr.check: proves the installed ops on this very machine."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lowlevel_simclr.config.command_line import FlagParser

if TYPE_CHECKING:
    from lowlevel_simclr.verification.bound import Finding, OpsModule

# TensorFlow is imported inside the functions, so that --help and --version answer at once.
DESCRIPTION = "Proves the installed ops on this machine."


def run_check(implementation: OpsModule, modes: Sequence[str] = ("eager", "graph")) -> list[Finding]:
    """Every case in the given modes; an implementation is right when all findings hold."""
    from lowlevel_simclr.verification.bound import Finding
    from lowlevel_simclr.verification.lars_update import judge_lars, list_lars_cases
    from lowlevel_simclr.verification.make_views import judge_views, list_view_cases
    from lowlevel_simclr.verification.nt_xent import judge_nt_xent, list_nt_xent_cases

    findings = [finding for case in list_nt_xent_cases(modes) for finding in judge_nt_xent(case, implementation)]
    measured = ((case, found) for case in list_view_cases(modes) for found in judge_views(case, implementation))
    findings += [Finding(case, *found) for case, found in measured]
    updated = ((case, found) for case in list_lars_cases(modes) for found in judge_lars(case, implementation))
    return findings + [Finding(case, *found) for case, found in updated]


def print_table(findings: Sequence[Finding]) -> str:
    """For each group of cases and quantity, the finding that uses most of its bound; then every one that fails."""
    lines = [
        f"{'rows':<11}{'type':<10}{'mode':<7}{'quantity':<14}{'cases':>5}  {'error':>9}  {'bound':>9}  {'used':>6}"
    ]
    groups: dict[tuple[str, str, str, str], list[Finding]] = {}
    for finding in findings:
        case = finding.case
        groups.setdefault((case.rows, case.dtype, case.mode, finding.quantity), []).append(finding)
    for (rows, dtype, mode, quantity), group in sorted(groups.items()):
        worst = max(group, key=_list_used)
        lines.append(
            f"{rows:<11}{dtype:<10}{mode:<7}{quantity:<14}{len(group):>5}  {worst.error:>9.2e}  {worst.bound:>9.2e}  "
            f"{_list_used(worst):>6.0%}"
        )
    lines += [f"FAILS: {finding.quantity} of {finding.case}" for finding in findings if not finding.holds]
    return "\n".join(lines)


def _list_used(finding: Finding) -> float:
    if finding.error == 0:
        return 0.0
    return min(finding.error / finding.bound, 1e6) if finding.bound > 0 else 1e6


def _list_devices(why_not: str | None, has_cuda: bool) -> Iterator[tuple[str, Sequence[str]]]:
    """Devices to check and the modes there; a GPU takes XLA's custom call in every mode, which needs a known batch."""
    import tensorflow as tf

    yield "/CPU:0", ("eager", "graph") if why_not else ("eager", "graph", "xla")
    for number, device in enumerate(tf.config.list_logical_devices("GPU")):
        if why_not or not has_cuda:
            print(f"{device.name}: not checked, {why_not or 'the library was built without CUDA kernels'}")
            continue
        tf.config.experimental.enable_tensor_float_32_execution(False)  # the stock formula must not have its errors
        yield f"/GPU:{number}", ("eager", "xla")


def main(argv: Sequence[str] | None = None, prog: str = "python -m lowlevel_simclr.check") -> int:
    """Check the native ops here. Returns the exit code: 0 when every finding holds, else 1."""
    FlagParser(prog=prog, description=DESCRIPTION).parse_strictly(sys.argv[1:] if argv is None else argv)
    started = time.perf_counter()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes do not concern the user
    import tensorflow as tf

    from lowlevel_simclr import ops
    from lowlevel_simclr.ops import _library, _route

    print(f"TensorFlow {tf.__version__}, {_library.find_instruction_set()}, {_library.count_threads()} threads")
    print(f"library: {_library.read_build_information()}")
    why_not = _route.find_route_error()
    print(f"jit_compile: {why_not or 'yes'}")
    findings = []
    for device, modes in _list_devices(why_not, bool(_library.read_build_information()["cuda"])):
        with tf.device(device):
            of_device = run_check(ops, modes)
        print(f"{device}, {', '.join(modes)}\n{print_table(of_device)}")
        findings += of_device
    failed = sum(not finding.holds for finding in findings)
    seconds = time.perf_counter() - started
    print(f"{len(findings)} findings, {failed} fail, {seconds:.0f} s; errors are in units of scale")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
