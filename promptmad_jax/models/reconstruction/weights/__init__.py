"""Weight files of whole models: ours and OneNIP's checkpoints."""
