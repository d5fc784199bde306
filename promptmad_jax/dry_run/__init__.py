"""What a run would take: memory, communication, without running it."""
