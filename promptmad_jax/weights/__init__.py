"""Foreign weights: tensor files, the hub, and tables from their keys to ours."""
