"""Image and mask files to batches: builders, decoding, the resized cache, pseudo-anomalies."""
