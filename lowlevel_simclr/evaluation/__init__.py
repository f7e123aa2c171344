"""Evaluates an encoder: computes its outputs (representations), classifies them, and draws the results."""
