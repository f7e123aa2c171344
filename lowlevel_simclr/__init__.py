"""SimCLR pretraining in low-level TensorFlow: exact NT-Xent, seeded views on the device, one run in one folder."""

__version__ = "0.1.0"
