"""What k-NN and the linear probe classify. evaluation.json has the results of each kind under its own keys."""

from __future__ import annotations

# The ending of the keys of a kind, and its name for people.
KINDS = {"_pixels": "pixels", "_untrained": "untrained encoder", "": "trained encoder"}
