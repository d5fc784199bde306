"""One protocol for a family of detectors: assemble, train, evaluate, predict."""
