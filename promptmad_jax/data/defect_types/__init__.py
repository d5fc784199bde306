"""Images labelled with defect types, for zero-shot detectors."""
