"""Benchmarks: programs that measure. Their results are stored in results/<device>/*.json, and report/ shows them."""

# Imported before TensorFlow, so that the package can enable oneDNN for the benches as it does for its own programs.
import lowlevel_simclr as lowlevel_simclr
