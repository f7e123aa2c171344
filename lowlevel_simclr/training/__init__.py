"""Pretraining: the plan of a run, its training step, its loop, its sessions and its replicas."""
