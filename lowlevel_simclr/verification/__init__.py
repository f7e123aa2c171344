"""What `check` proves: cases, bounds and judgements, one module an op."""
