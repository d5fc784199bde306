"""The figures of each class in percent, with published ones beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from promptmad_jax.reporting.published import Published


@dataclass(frozen=True)
class Column:
    """A metric of the run, or of a publication that states it."""

    metric: str
    published: Published | None = None

    def stated(self, name: str) -> float | None:
        """The published figure of a class in percent, if any."""
        return self.published and self.published.classes.get(name, {}).get(self.metric)

    def stated_mean(self, names: Sequence[str]) -> float | None:
        """The published mean over classes in percent, if any."""
        return self.published and self.published.mean_over(names, self.metric)


@dataclass(frozen=True)
class MetricValue:
    """A metric in percent, None where it is undefined.

    Attributes:
      points: a difference in percentage points: of the run to a published figure, or of a run to
        the reference; None where it is undefined or there is nothing to compare with.
      std: standard deviation over seeds, where the value is their mean.
      interval: 95 % interval of the points; None where none is known.
    """

    value: float | None
    points: float | None = None
    std: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def gain(self) -> float:
        """The points if they are beyond chance, 0 if they may be chance or nothing is known."""
        if self.points is None or self.interval is None:
            return 0.0
        low, high = self.interval
        return self.points if low > 0 or high < 0 else 0.0


@dataclass(frozen=True, eq=False)
class ClassTable:
    """The figures of each column, by class and averaged over the classes."""

    columns: tuple[Column, ...]
    classes: dict[str, list[MetricValue]]
    mean: list[MetricValue]

    def is_lowest(self, index: int, figure: MetricValue) -> bool:
        """Returns True for the lowest figure of a column whose figures are not all equal."""
        values = {row[index].value for row in self.classes.values()} - {None}
        return len(values) > 1 and figure.value == min(values)


def make_class_table(result: Mapping, published: Sequence[Published]) -> ClassTable:
    """Puts every metric of metrics.json beside the publications that state it."""
    columns = []
    for metric in result["mean"]:
        columns.append(Column(metric))
        columns += [Column(metric, entry) for entry in published if metric in entry.mean]
    names = list(result["classes"])
    classes = {
        name: [_beside(own[c.metric], c.published, c.stated(name)) for c in columns]
        for name, own in result["classes"].items()
    }
    mean = [_beside(result["mean"][c.metric], c.published, c.stated_mean(names)) for c in columns]
    return ClassTable(tuple(columns), classes, mean)


def _beside(own: float | None, published: Published | None, stated: float | None) -> MetricValue:
    own = to_percent(own)
    if published is None:
        return MetricValue(own)
    return MetricValue(stated, None if own is None or stated is None else own - stated)


def to_percent(fraction: float | None) -> float | None:
    """A fraction in percent, None where it is undefined."""
    return None if fraction is None else 100 * fraction
