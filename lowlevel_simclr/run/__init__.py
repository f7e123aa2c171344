"""A run folder: its files, its checkpoints, and what they say."""
