"""Reads and writes the folder of a run: its files, its checkpoints and its results."""
