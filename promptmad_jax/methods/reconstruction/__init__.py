"""Detectors that reconstruct normal features: PromptMAD, OneNIP, UniAD."""
