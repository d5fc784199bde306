"""Zero-shot detectors on CLIP: DAPO, MultiADS, plain CLIP."""
