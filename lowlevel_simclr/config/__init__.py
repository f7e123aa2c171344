"""The configuration of a run: its settings, their checks, the presets and the command line."""
