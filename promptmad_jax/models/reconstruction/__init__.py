"""The reconstruction detectors: reconstructor, segmentor, diffusion, and their siblings."""
