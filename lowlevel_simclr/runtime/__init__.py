"""Handles versions of TensorFlow and Keras, devices and operating systems: files, signals, memory and progress."""
