"""What `check` proves: bound.py holds the rule, and one file per op its cases."""
