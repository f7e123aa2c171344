"""Exports the encoder of a run for other programs. Each format has a module, and each exported file is tested."""
