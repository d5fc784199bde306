"""Memory and communication of a run, without running it."""
