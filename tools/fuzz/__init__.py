"""Bent inputs for every command, drawn from a seed, and a judge of what the commands do."""
