"""Detectors that know a defect by its words: DAPO, MultiADS and plain CLIP, on one frozen CLIP.

The way in is `loading.load_detector`; what they differ in is `config.DapoConfig`.
"""
