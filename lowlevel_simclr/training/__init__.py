"""Trains the encoder without labels: the plan of a run, the training step and loop, the sessions and the replicas."""
