"""Benchmarks: measuring (bench_*.py), storing (results/<device>/*.json) and drawing (report.py) are separate."""
