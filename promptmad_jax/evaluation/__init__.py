"""Exact metrics and the evaluation protocol, with what it needs from a model."""
