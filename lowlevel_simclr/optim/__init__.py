"""The optimizers, the learning rate's schedule, and the loss scale of float16."""
