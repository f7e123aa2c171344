"""The differences between versions of TensorFlow and Keras, and between devices."""
