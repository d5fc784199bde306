"""Synthetic inspection pictures, drawn from a seed with numpy, scipy and Pillow."""

from promptmad_jax.data.synthetic.scenes import CLASS_NAMES, GOOD, defect_types, render_sample

__all__ = ["CLASS_NAMES", "GOOD", "defect_types", "render_sample"]
