"""Models: images and prompts in, reconstruction and logits out."""
