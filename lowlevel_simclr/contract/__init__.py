"""The definitions that all implementations of an op share: random numbers, argument checks, types and constants.

Each op has a reference implementation in NumPy, and the other implementations are tested against it. Apart from the
definitions in this package, the reference shares no code with the other implementations.
"""
