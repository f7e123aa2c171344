"""Data sets, batches, views and the test transform."""
