"""Frozen backbones: EfficientNets and the levels they yield."""
