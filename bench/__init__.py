"""Benchmarks: measuring (bench_*.py), storing (results/<device>/*.json) and drawing (report.py) are separate."""

import lowlevel_simclr as lowlevel_simclr  # before TensorFlow, which reads once whether to use oneDNN: measured as it is run
