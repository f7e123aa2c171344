"""What k-NN and the linear probe classify. evaluation.json has the results of each kind under its own keys."""

from __future__ import annotations

# From the ending of a kind's keys in evaluation.json to the name of the kind for people.
KINDS = {"_pixels": "pixels", "_untrained": "untrained encoder", "": "trained encoder"}
