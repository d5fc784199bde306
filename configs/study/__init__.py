"""Configurations of studies, each with many rows."""
