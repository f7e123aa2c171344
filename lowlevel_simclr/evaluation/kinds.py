"""The kinds of inputs that an evaluation classifies: pixels, and outputs of the untrained and the trained encoder.

The results of each kind have their own keys in evaluation.json.
"""

from __future__ import annotations

# Maps the ending of a kind's keys in evaluation.json to the name of the kind that tables show.
KINDS = {"_pixels": "pixels", "_untrained": "untrained encoder", "": "trained encoder"}
