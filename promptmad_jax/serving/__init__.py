"""Prediction with trained detectors, for single images and folders."""
