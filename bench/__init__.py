"""Benchmarks (benches). They store results in results/<device>/*.json, and bench.report makes pages from them."""

# The benches import this package before TensorFlow. So it can enable oneDNN, as it does in its programs.
import lowlevel_simclr as lowlevel_simclr
