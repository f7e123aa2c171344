"""Tests the tables about reading many photographs. Each number must stand in the row of its name."""

from __future__ import annotations

from bench.report import images_table


def test_each_start_and_each_way_of_reading_has_its_number() -> None:
    result = {
        "files": 100000,
        "side": 256,
        "starts": {
            "first": {"seconds": 52.88, "processor seconds": 88.21},
            "second with --cache": {"seconds": 2.16, "processor seconds": 2.14},
        },
        "images per second of one core": {"check only": 2027.4, "packed, batches of 64": 21806.3},
        "lightly": {"images per second": {"decoded": 379.7}},
        "device": "a processor",
        "date": "2026-01-02",
    }
    rows = images_table.format_tables(result).splitlines()
    assert rows[0].startswith("| 100,000 photographs")
    assert rows[2:4] == ["| first start | 52.9 | 88.2 |", "| second start with `--cache` | 2.2 | 2.1 |"]
    assert rows[7:10] == [
        "| check only | 2,027 |",
        "| packed, batches of 64 | 21,806 |",
        "| decoded by lightly's loader | 380 |",
    ]
