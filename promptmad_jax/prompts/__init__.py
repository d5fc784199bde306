"""Class and defect words to text tokens: vocabulary, tokenizer, CLIP text tower, cache.

The way in is `promptmad_jax.prompts.embeddings.encode_classes`.
"""
