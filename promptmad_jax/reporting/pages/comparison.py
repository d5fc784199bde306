"""The page that compares runs; the first of them is the reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from promptmad_jax.evaluation.image_scores import SCORES_FILE
from promptmad_jax.reporting.class_table import MetricValue, to_percent
from promptmad_jax.reporting.compared_runs import (
    Disagreement,
    ImageView,
    Run,
    differing_settings,
)
from promptmad_jax.reporting.noise import Intervals, image_intervals, seed_interval
from promptmad_jax.reporting.pages.rendering import VISIBLE, signed, write_page
from promptmad_jax.reporting.pages.thumbnails import PictureRow, encode, encode_overlay
from promptmad_jax.reporting.tables import HEADINGS, HEADLINES
from promptmad_jax.reporting.warnings import training_warnings

MetricValues = dict[str, MetricValue]  # by metric


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """A run beside the reference; the points of its figures are those above the reference."""

    label: str
    mean: MetricValues
    classes: dict[str, MetricValues]

    def record(self, metric: str) -> tuple[int, int, int]:
        """The numbers of classes where the run is higher, equal and lower.

        Equal are differences within chance, or, where no interval is known, below `VISIBLE`.
        """
        figures = [own[metric] for own in self.classes.values() if own[metric].points is not None]
        known = [own.points if own.interval is None else own.gain for own in figures]
        won, lost = sum(v >= VISIBLE for v in known), sum(v <= -VISIBLE for v in known)
        return won, len(known) - won - lost, lost

    def has_intervals(self, metric: str) -> bool:
        """Returns True if the interval of a class's difference is known."""
        return any(own[metric].interval is not None for own in self.classes.values())

    @property
    def extremes(self) -> str:
        """The classes where the run loses and gains most, in words, for the `HEADLINES`."""
        words = []
        for metric in [metric for metric in HEADLINES if metric in self.mean]:
            points = {name: own[metric].points for name, own in self.classes.items()}
            known = {name: value for name, value in points.items() if value is not None}
            ends = sorted(known, key=known.__getitem__)[:: max(1, len(known) - 1)]
            far = [
                f"{name} {signed(known[name])}{self._doubt(name, metric)}"
                for name in ends
                if abs(known[name]) >= VISIBLE
            ]
            if far:
                words.append(f"{HEADINGS[metric]} in {' and '.join(far)}")
        return "; ".join(words)

    def _doubt(self, name: str, metric: str) -> str:
        own = self.classes[name][metric]
        return " (within noise)" if own.interval is not None and not own.gain else ""


def write_comparison(
    directory: Path,
    runs: Sequence[Run],
    images: Sequence[Disagreement],
    rows: Sequence[PictureRow],
    no_pictures: str,
) -> Path:
    """Writes the page.

    Args:
      images: those that the runs rank most differently.
      rows: the first of them as each run sees them. no_pictures: why there are none, if so.
    """
    first = runs[0]
    counts = first.result["protocol"]["images"].values()
    labels = [run.label for run in runs]
    return write_page(
        directory,
        "comparison.html",
        title=" against ".join(filter(None, [labels[0], " and ".join(labels[1:])])),
        dataset=first.manifest["config"]["data"]["dataset"],
        image_count=sum(count["normal"] + count["defective"] for count in counts),
        labels=labels,
        warnings=[
            f"{run.label}: {text}"
            for run in runs
            for text in training_warnings(run.result, run.manifest)
        ],
        metrics=[m for m in first.result["mean"] if all(m in r.result["mean"] for r in runs)],
        runs=[_compare(run, first) for run in runs],
        grouped=any(run.seeds for run in runs),
        unscored=[run.label for run in runs if run.scores is None],
        scores_file=SCORES_FILE,
        images=images,
        rows=rows,
        no_pictures=no_pictures,
        settings=differing_settings(runs),
    )


def _compare(run: Run, reference: Run) -> ComparedRun:
    """The figures of a run with their distance to the reference's."""
    classes, others = run.result["classes"], reference.result["classes"]
    spread, intervals = run.spread, _intervals(run, reference)
    return ComparedRun(
        run.label,
        _beside(run.result["mean"], reference.result["mean"], spread["mean"], intervals[0]),
        {
            name: _beside(classes[name], other, spread["classes"][name], intervals[1].get(name, {}))
            for name, other in others.items()
        },
    )


def _intervals(run: Run, reference: Run) -> tuple[Intervals, dict[str, Intervals]]:
    """Of the means and by class: over the seeds where both have several, else over test images."""
    if len(run.seeds) > 1 and len(reference.seeds) > 1:
        own, other = run.spread, reference.spread
        classes = {
            name: _over_seeds(own["classes"][name], other["classes"][name])
            for name in other["classes"]
        }
        return _over_seeds(own["mean"], other["mean"]), classes
    if run is reference or run.scores is None or reference.scores is None:
        return {}, {}
    return image_intervals(reference.scores, run.scores)


def _over_seeds(own: Mapping, other: Mapping) -> Intervals:
    intervals = {m: seed_interval(own[m], other[m]) for m in own.keys() & other.keys()}
    return {metric: interval for metric, interval in intervals.items() if interval}


def _beside(
    own: Mapping, reference: Mapping, spread: Mapping, intervals: Intervals
) -> MetricValues:
    figures = {}
    for metric in own.keys() & reference.keys():
        value, other = to_percent(own[metric]), to_percent(reference[metric])
        points = None if None in (value, other) else value - other
        std = to_percent(spread[metric]["std"])
        figures[metric] = MetricValue(value, points, std, intervals.get(metric))
    return figures


def side_by_side(
    labels: Sequence[str], entry: Disagreement, views: Sequence[ImageView]
) -> PictureRow:
    """The row of one image as each run sees it."""
    pictures = {"image": encode(views[0].image), "mask": encode(views[0].mask)}
    for label, rank, view in zip(labels, entry.ranks, views, strict=True):
        overlay = encode_overlay(view.overlay, view.mask, view.window)
        pictures[f"{label}, rank {rank:.0f}"] = overlay
    image = entry.image
    return PictureRow(f"{image.class_name}, {image.defect_type}", image.filename, pictures)
