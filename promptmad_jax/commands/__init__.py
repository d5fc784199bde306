"""The commands, each read top to bottom; their flags are in the entry points."""
