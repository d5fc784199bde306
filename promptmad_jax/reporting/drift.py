"""The change of normal images' scores since the thresholds were set, in words and charts."""

from collections.abc import Sequence

import numpy as np
from etils import epath

from promptmad_jax.evaluation.drift import ClassDrift, Sample
from promptmad_jax.reporting.decisions import rounded
from promptmad_jax.reporting.pages.charts import Chart, histogram_chart
from promptmad_jax.reporting.pages.rendering import write_page

_KINDS = ("when the thresholds were set", "now")
_MEANS = {
    ("score", True): "expect more false alarms than stated",
    ("score", False): "defects may be missed",
    ("novelty", True): "the pictures as a whole have changed: light, camera, pose or product",
    ("novelty", False): "the pictures as a whole vary less",
}


def sentences(drift: ClassDrift) -> list[str]:
    """Says if the thresholds of a class still hold, and what speaks for it."""
    share = rounded(drift.alarms / drift.images)
    counted = f"{drift.alarms} of {drift.images} images called defective or unknown ({share} %)"
    if drift.holds is None:
        return [f"cannot be said: {drift.reason}", counted]
    if drift.holds:
        points = round(100 * max(sample.unseen for sample in drift.samples))
        unseen = f"with these numbers, up to {points} % of the parts could differ unseen"
        return ["the thresholds hold: normal parts score as before", unseen, counted]
    changed = [_changed(sample) for sample in drift.samples if sample.drifted]
    advice = "look at the overlays; enroll good parts of today, or train again on new pictures"
    return ["the thresholds no longer hold", *changed, advice, counted]


def _changed(sample: Sample) -> str:
    before, now = float(np.median(sample.before)), float(np.median(sample.now))
    word = "risen" if now > before else "fallen"
    return (
        f"the {sample.quantity} has {word}, median {before:.3g} then and {now:.3g} now (p = "
        f"{sample.p:.1g}): {_MEANS[sample.quantity, now > before]}"
    )


def write_drift(directory: epath.Path, found: Sequence[ClassDrift]) -> epath.Path:
    """Writes `index.html` with the sentences and a chart of each sample; returns its path."""
    words = {drift.class_name: sentences(drift) for drift in found}
    charts = {
        drift.class_name: [(sample, _chart(drift, sample)) for sample in drift.samples]
        for drift in found
    }
    title = "Do the thresholds still hold?"
    return write_page(directory, "drift.html", title=title, words=words, charts=charts)


def _chart(drift: ClassDrift, sample: Sample) -> Chart:
    values = np.concatenate([sample.before, sample.now])
    now = np.arange(len(values)) >= len(sample.before)
    return histogram_chart(drift.class_name, values, now, None, _KINDS, sample.quantity)
