"""Class and defect words to text tokens: vocabulary, encoders, cache.

The way in is `promptmad_jax.prompts.embeddings.encode_classes`.
"""
