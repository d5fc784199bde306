"""The shipped configurations; installed as promptmad_jax.configs."""
