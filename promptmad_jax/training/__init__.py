"""Optimizer, training state, jitted steps and the training loop."""
