"""What every run needs: mesh, checkpoints, metrics log, manifest, errors."""
