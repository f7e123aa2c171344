"""The test problems (cases) of `python -m lowlevel_simclr.check`. bound.py says which results count as right."""
