"""The cases of `check`: one file per op. bound.py holds the rule by which a result counts as right."""
