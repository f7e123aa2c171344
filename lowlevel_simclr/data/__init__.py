"""Reads data sets, and prepares their images for training and for the evaluation."""
