"""Tests the tables that show how long `evaluate` and `embed` take. Each number must be in the right row."""

from __future__ import annotations

from bench.report import evaluation_table


def make_table(linear: str) -> list[str]:
    """Return a table as a run prints it, with this accuracy of the linear probe."""
    return ["accuracy, 0 to 1     k-NN 20    linear", f"trained encoder        0.431     {linear}"]


def test_each_evaluation_and_each_part_has_its_times() -> None:
    result = {
        "device": "a processor",
        "date": "2026-01-02",
        "flags": ["--dataset", "cifar10"],
        "runs": {
            "before": {"wall": 160.5, "processor": 259.3, "table": make_table("0.486")},
            "baselines measured": {"wall": 115.46, "processor": 184.42, "table": make_table("0.485")},
            "baselines read": {"wall": 27.26, "processor": 47.76, "table": make_table("0.485")},
        },
        "parts": {"k-NN": {"wall": 3.48, "processor": 6.64, "accuracy": {"20": 0.4}}},
    }
    rows = evaluation_table.format_evaluation(result).splitlines()
    assert rows[3:6] == [
        "| the first evaluation, which measures the baselines | 115.5 | 184.4 |",
        "| a later evaluation, which reads the baselines | 27.3 | 47.8 |",
        "| part: k-NN | 3.5 | 6.6 |",
    ]
    assert "a processor, 2026-01-02, on a run with `--dataset cifar10`" in rows[7]
    assert rows[8].endswith("older version: trained encoder, linear: 0.486 before, 0.485 now.")


def test_embed_stands_beside_the_encoder_alone() -> None:
    result = {
        "device": "a processor",
        "date": "2026-01-02",
        "problem": {"files": 60000, "side": 32, "encoder": "resnet18", "format": "parquet"},
        "embed": {"wall seconds": 120.0, "processor seconds": 210.0},
        "encoder alone": {"wall seconds": 100.0, "processor seconds": 200.0},
        "embed / encoder alone": {"wall seconds": 1.2, "processor seconds": 1.05},
    }
    rows = evaluation_table.format_embed(result).splitlines()
    assert rows[0] == "| 60,000 files | wall seconds | processor seconds |"
    assert rows[2:5] == [
        "| the encoder alone, on images in memory | 100.0 | 200.0 |",
        "| `embed` into parquet | 120.0 | 210.0 |",
        "| ratio | 1.20 | 1.05 |",
    ]
