"""The cases of `python -m lowlevel_simclr.check`: one file per op. bound.py holds the rule that says what is right."""
