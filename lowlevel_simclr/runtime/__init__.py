"""Handles the differences between versions of TensorFlow and Keras, between devices and between operating systems.

Also has helpers for files, signals, memory and progress.
"""
