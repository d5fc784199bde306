"""Pseudo-anomalies pasted into normal images, inside the jitted training step."""

from promptmad_jax.data.pseudo_anomaly.config import PseudoAnomalyConfig
from promptmad_jax.data.pseudo_anomaly.synthesis import synthesize

__all__ = ["PseudoAnomalyConfig", "synthesize"]
