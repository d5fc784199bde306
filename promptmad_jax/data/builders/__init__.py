"""TFDS builders, registered when this package is imported; ArrayRecord, without TensorFlow."""

from promptmad_jax.data.builders import anomaly_folder, mvtec_ad, synthetic_mvtec

__all__ = ["anomaly_folder", "mvtec_ad", "synthetic_mvtec"]
