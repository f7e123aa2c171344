"""The definitions that all implementations of an op share: random numbers, argument checks, types and constants.

Each op has a reference implementation in NumPy, against which the other implementations are tested. Apart from these
definitions, the reference shares no code with them.
"""
