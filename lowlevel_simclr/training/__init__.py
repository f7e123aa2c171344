"""Pretraining: the plan of a run, its step, its loop, its sessions, and several replicas."""
