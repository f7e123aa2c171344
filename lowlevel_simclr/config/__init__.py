"""What a run is: settings, their checks, their text, presets and the command line."""
