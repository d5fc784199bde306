"""What exists for CPUs alone: memory, caches, vector width, dispatch."""
