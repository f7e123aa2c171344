"""The public functions and classes. `lowlevel_simclr` exports them."""
