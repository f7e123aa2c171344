"""What an encoder has learned: representations, protocols, tables and pictures."""
