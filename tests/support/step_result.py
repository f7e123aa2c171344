"""A made-up result of the benchmark bench_step, for tests of the programs that show or compare such results."""

from __future__ import annotations

from typing import Any

STEP: dict[str, Any] = {
    "benchmark": "step",
    "device": "a",
    "date": "2000-01-01",
    "load": 0.0,
    "config": {
        "encoder": "resnet50",
        "stem": "imagenet",
        "image_size": 32,
        "batch_size": 256,
        "precision": "bfloat16",
        "implementation": "native",
    },
    "whole_pairs_per_second": 200.0,
    "encoder_pairs_per_second": 204.0,
    "plain_pairs_per_second": 120.0,
    "torch_pairs_per_second": None,
    "peak_memory_bytes": 2**30,
    "forms": {
        "whole": dict(pairs_per_second=200.0, best_pairs_per_second=201.0, median_seconds=1.28, processor_seconds=2.5)
    },
    "whole_against": {},
    "missing": {"torch": "PyTorch is not installed"},
    "stages_seconds": {"views": 0.0128, "backward": 0.64, "input, loop and metrics": 0.6272},
    "operations_per_step": 2.5e11,
    "of_gemm_peak": {"float32": 0.9},
}
