"""SimCLR pretraining in low-level TensorFlow: exact NT-Xent, seeded views on the device, one run in one folder."""

import os

# Read once, when TensorFlow is loaded. Left alone, TensorFlow uses oneDNN only on processors with AVX-512 VNNI or AMX;
# on a Zen 3 with AVX2 a step of resnet20 takes half the time with it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__version__ = "0.1.0"
