"""The definitions that all implementations of an op share: random words, argument checks, types and constants.

The NumPy reference shares no other code with the implementations that it judges.
"""
