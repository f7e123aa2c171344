"""Benches of reading images."""
