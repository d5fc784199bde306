"""What each command does, top to bottom; its flags are in the entry point."""
