"""Writes h or z of many images into one file, and searches these rows for similar images."""
