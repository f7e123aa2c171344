"""What every implementation of an op shares by definition: random words, argument checks, types and constants.

The NumPy reference shares nothing else with what it judges.
"""
