"""Benchmarks (benches). They store results in results/<device>/*.json, and bench.report makes pages from them."""

# This import comes before TensorFlow's. So the package can enable oneDNN for the benches, as it does for its programs.
import lowlevel_simclr as lowlevel_simclr
