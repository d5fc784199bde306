"""Code for CPUs alone: memory, chunks that fit the caches, vector width."""
