"""Benchmarks: programs that measure, their stored results (results/<device>/*.json), and report/, which shows them."""

# Imported before TensorFlow, so that the package can choose oneDNN for the benches as it does for its own programs.
import lowlevel_simclr as lowlevel_simclr
