"""Optimizer, state, jitted step, loop."""
