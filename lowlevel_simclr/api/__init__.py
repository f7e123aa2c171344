"""The public functions and classes, as `lowlevel_simclr` exports them."""
