"""Weights of other projects: tensor files, the hub, and tables from their keys to ours."""
