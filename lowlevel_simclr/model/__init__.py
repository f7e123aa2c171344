"""The encoder, the projection head and their layers."""
