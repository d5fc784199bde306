"""CLIP's weight files: key tables, shapes, config.json."""
