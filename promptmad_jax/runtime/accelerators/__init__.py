"""Code for accelerators alone."""
