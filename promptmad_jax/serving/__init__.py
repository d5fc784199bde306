"""Trained detectors at work on single images and folders."""
