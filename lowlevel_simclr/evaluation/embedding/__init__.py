"""Writes the encoder outputs (h) or projections (z) of many images into a file, and finds similar images with them."""
