"""The configuration of a run: settings, checks, text, presets and the command line."""
