"""PromptMAD, OneNIP and DAPO in JAX: multi-class visual anomaly localization."""

__version__ = "0.1.0"
