"""The test problems (cases) of `python -m lowlevel_simclr.check`. bound.py has the rule for which results are right."""
