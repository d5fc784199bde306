"""TFDS builders, registered when this package is imported; ArrayRecord, without TensorFlow."""

from promptmad_jax.data.builders import (  # noqa: F401
    anomaly_folder,
    btad,
    mad,
    mpdd,
    mvtec_ad,
    mvtec_ad_2,
    normal_folder,
    real_iad,
    synthetic_mvtec,
    visa,
)
