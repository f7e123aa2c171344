"""Benchmarks (benches) of programs that read many image files."""
