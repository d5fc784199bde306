"""Published figures by class, shown beside a run's own on the same data set."""

import importlib.resources
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Published:
    """One method's figures on one data set, in percent.

    Attributes:
      method: its name. image_size: side of its input in pixels.
      source: where the figures come from.
      classes: class -> metric -> percent. mean: metric -> percent, over all of them.
      inferred: (class, metric) of figures that follow from the source without being stated in it.
    """

    method: str
    image_size: int
    source: str
    classes: Mapping[str, Mapping[str, float]]
    mean: Mapping[str, float]
    inferred: frozenset[tuple[str, str]]

    def mean_over(self, names: Collection[str], metric: str) -> float | None:
        """The mean over these classes, None if one of them was not published."""
        if set(names) == set(self.classes):
            return self.mean[metric]
        if not names or not set(names) <= set(self.classes):
            return None
        return sum(self.classes[name][metric] for name in names) / len(names)


def published_results(dataset: str, image_size: int) -> tuple[Published, ...]:
    """The published figures on a data set, for each method at the size nearest to `image_size`.

    Args:
      dataset: the name in the configuration, with or without `:VERSION`. Class names are not
        enough, since a user's own "screw" is not MVTec-AD's.

    Returns:
      An empty tuple for a data set without published figures.
    """
    nearest: dict[str, Published] = {}
    for values in _tables().get(dataset.partition(":")[0], ()):
        entry = Published(**values | {"inferred": frozenset(map(tuple, values["inferred"]))})
        best = nearest.setdefault(entry.method, entry)
        if abs(entry.image_size - image_size) < abs(best.image_size - image_size):
            nearest[entry.method] = entry
    return tuple(nearest.values())


def _tables() -> Mapping[str, list[dict]]:
    resource = importlib.resources.files("promptmad_jax.reporting") / "published.json"
    return json.loads(resource.read_text(encoding="utf-8"))
