"""Benchmarks (benches). They store results in results/<device>/*.json, and bench.report makes pages from them."""

# The benches import bench before they import TensorFlow. So this import of lowlevel_simclr can enable oneDNN in time,
# as it does in the programs of lowlevel_simclr.
import lowlevel_simclr as lowlevel_simclr
