"""The definitions that all implementations of an op share: random words, argument checks, types and constants.

Apart from these definitions, the NumPy reference shares no code with the implementations that it judges.
"""
