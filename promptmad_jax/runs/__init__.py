"""The folder of a run: its files, manifest, resuming, restoring."""
