"""Tests cuda_resources, which makes a table of each CUDA kernel's registers and memory from the report of ptxas.

ptxas is CUDA's assembler.
"""

from __future__ import annotations

import json
from pathlib import Path

from bench.ops import cuda_resources

LOG = """
ptxas info    : Compiling entry function '_Z6kernelv' for 'sm_80'
ptxas info    : Function properties for _Z6kernelv
    64 bytes stack frame, 168 bytes spill stores, 120 bytes spill loads
ptxas info    : Used 254 registers, used 1 barriers, 440 bytes cmem[0]
ptxas info    : Compiling entry function '_Z6kernelv' for 'sm_90'
ptxas info    : Function properties for _Z6kernelv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers
"""


def test_the_report_of_ptxas_is_read(tmp_path: Path) -> None:
    log, page, out = tmp_path / "a.log", tmp_path / "gpu.md", tmp_path / "out.json"
    log.write_text(LOG)
    page.write_text("x\n<!-- cuda_resources -->\nold\n<!-- /cuda_resources -->\n")
    cuda_resources.main([str(log), "--page", str(page), "--out", str(out)])
    rows = json.loads(out.read_text())
    assert [(row["architecture"], row["registers"], row["stores"]) for row in rows] == [
        ("sm_80", 254, 168),
        ("sm_90", 40, 0),
    ]
    assert "| sm_80 | 254 | 168 / 120 | 64 |" in page.read_text() and "old" not in page.read_text()
