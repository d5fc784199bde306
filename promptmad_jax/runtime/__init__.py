"""Services of every run: mesh, checkpoints, metrics log, manifest, errors."""
