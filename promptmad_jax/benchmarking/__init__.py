"""What `promptmad_jax.benchmark` measures, and how; needs no data set and no weights."""
