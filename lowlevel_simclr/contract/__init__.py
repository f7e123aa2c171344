"""What all implementations of an op share by definition: random words, argument checks, types and constants.

The NumPy reference shares nothing else with the implementations that it judges.
"""
