"""Pseudo-anomalies pasted into normal images, inside the jitted training step."""
