"""Exports the encoder of a run for other programs: one module for each format, and a test that h stays the same."""
