"""Benchmarks: measuring (bench_*.py), storing (results/<device>/*.json) and drawing (report.py) are separate."""

# Before TensorFlow, which reads once whether to use oneDNN: things are measured as they are run.
import lowlevel_simclr as lowlevel_simclr
