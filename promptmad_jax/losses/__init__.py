"""Losses: pure functions, unreduced where a mask may apply, combined in `objective`."""
