"""Trains the encoder without labels. Has the plan of a run, the training step and loop, the sessions and replicas."""
