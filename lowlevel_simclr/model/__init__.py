"""Builds the encoder, the projection head and their layers."""
