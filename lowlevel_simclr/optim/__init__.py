"""The optimizers, the learning-rate schedule, and the loss scale of float16."""
