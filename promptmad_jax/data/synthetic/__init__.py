"""Synthetic inspection pictures, drawn from a seed with numpy, scipy and Pillow."""
