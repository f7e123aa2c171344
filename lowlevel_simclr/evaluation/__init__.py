"""The evaluation of an encoder: representations, protocols, tables and pictures."""
