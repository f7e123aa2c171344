"""Writes h (representation) or z (projection) of many images into one file, and finds similar images by these rows."""
