"""The encoder of a run as files for other programs: one module a format, and the proof that h stays the same."""
