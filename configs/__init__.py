"""Configurations for `--config=configs/NAME.py[:arguments]`."""
