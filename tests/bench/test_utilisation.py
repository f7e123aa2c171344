"""What the GPU benchmarks count: operations of a model, a device's peak, ptxas's report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import utilisation
from bench.ops import bench_convolution, cuda_resources
from lowlevel_simclr.model import encoder, projection

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


def test_operations_are_those_of_the_layers() -> None:
    g = projection.build_projection_head(32, (16, 8))
    assert utilisation.operations_of_view(g) == 2 * (32 * 16 + 16 * 8)
    assert utilisation.operations_of_pair([g]) == 6 * 2 * (32 * 16 + 16 * 8)
    f = encoder.build_encoder("resnet20", "cifar", 32, 3)
    # He et al. 2016, CIFAR ResNet-20: 40.8 million multiplications and additions of convolutions, shortcuts apart.
    assert utilisation.operations_of_view(f) == pytest.approx(2 * 40.8e6, rel=0.03)


@pytest.mark.parametrize(
    ("side", "size", "stride", "products"), [(1, 3, 1, 1), (2, 3, 1, 16), (2, 1, 2, 1), (4, 3, 1, 100)]
)
def test_operations_of_a_convolution_leave_padding_out(side: int, size: int, stride: int, products: int) -> None:
    found = bench_convolution.operations(side, size, stride, 5, 7, rows=2)
    assert found == 3 * 2 * 2 * products * 5 * 7  # forward and two gradients; a product and a sum; two views


@pytest.mark.slow
def test_the_convolution_bench_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench_convolution.main(["--views", "2", "--seconds", "0", "--json", str(tmp_path / "convolution.json")])
    assert "matrix product" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "convolution.json").read_text())["rows"]) >= 2 * len(bench_convolution.SHAPES)


def test_a_share_needs_a_known_peak() -> None:
    assert utilisation.share(1000.0, 989e9, "NVIDIA H200", "bfloat16") == pytest.approx(1.0)
    assert utilisation.share(1000.0, 989e9, "some other card", "bfloat16") is None
    assert utilisation.share(1000.0, 989e9, None, "bfloat16") is None


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
