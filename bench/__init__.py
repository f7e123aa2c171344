"""Benchmarks (benches). They store results in bench/results/DEVICE/. bench/report/ makes tables and pages from them."""

# On import, lowlevel_simclr makes TensorFlow use oneDNN (a library of fast CPU code). This works only before TensorFlow
# is imported. Every bench imports this package first, so the next import comes early enough.
import lowlevel_simclr as lowlevel_simclr
