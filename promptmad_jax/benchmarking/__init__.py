"""Timings and memory of `promptmad benchmark`, without data sets or downloaded weights."""
