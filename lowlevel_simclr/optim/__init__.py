"""The optimizers, the learning-rate schedule, and the loss scale for float16."""
