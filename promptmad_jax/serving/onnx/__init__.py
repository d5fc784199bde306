"""The detector for lines without JAX: the program in ONNX, and verdicts from it by NumPy."""
