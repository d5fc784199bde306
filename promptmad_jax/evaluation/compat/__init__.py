"""Metrics as other code bases define them, reported beside ours."""
