"""Loads stored runs on the same images and finds their differences."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from promptmad_jax.evaluation.image_scores import SCORES_FILE, ImageScore, read_scores
from promptmad_jax.evaluation.spread import spread
from promptmad_jax.reporting.explanations import Window
from promptmad_jax.runs.stored import read_manifest, read_result
from promptmad_jax.runtime.errors import UserError

MAX_DISAGREEMENTS = 40

Key = tuple[str, str]  # class and file name of an image


@dataclass(frozen=True, eq=False)
class Run:
    """The stored results of a run.

    Attributes:
      label: the end of its path, unique among the runs.
      result: metrics.json. manifest: manifest.json.
      scores: (class, file name) -> score; None without image_scores.csv.
      seeds: the runs that this one is the mean of, see `group_seeds`; empty for a single run.
    """

    label: str
    path: Path
    result: Mapping
    manifest: Mapping
    scores: Mapping[Key, ImageScore] | None
    seeds: tuple["Run", ...] = ()

    @functools.cached_property
    def spread(self) -> Mapping:
        """Statistics over the seeds, as of `evaluation.spread.spread`.

        Raises:
          UserError: the runs have different metrics.
        """
        runs = self.seeds or (self,)
        try:
            return spread([run.result for run in runs])
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{runs[0].path} and its other seeds do not have the same figures; "
                "evaluate all of them with this version"
            ) from error


@dataclass(frozen=True)
class Disagreement:
    """An image whose rank within its class differs between the runs.

    Attributes:
      image: with the score of the first run.
      ranks: one for each run, 0 for the lowest score of the class and 100 for the highest.
    """

    image: ImageScore
    ranks: tuple[float, ...]

    @property
    def spread(self) -> float:
        return max(self.ranks) - min(self.ranks)


@dataclass(frozen=True, eq=False)
class ImageView:
    """An image as one run sees it.

    Attributes:
      image: uint8 [H, W, 3], at the size of the run's input. mask: bool [H, W].
      overlay: the final map over the image, uint8 [H, W, 3]. window: where the score comes from.
    """

    image: np.ndarray
    mask: np.ndarray
    overlay: np.ndarray
    window: Window


def load_runs(directories: Sequence[Path]) -> list[Run]:
    """Reads the runs and checks that they were evaluated on the same images.

    Raises:
      UserError: if a run has no stored figures, is given twice, or was evaluated on other data
        than the first.
    """
    runs = []
    for path, label in zip(directories, unique_labels(directories), strict=True):
        result, manifest = read_result(path), read_manifest(path)
        scores = None
        if (path / SCORES_FILE).exists():
            scores = {(row.class_name, row.filename): row for row in read_scores(path)}
        runs.append(Run(label, path, result, manifest, scores))
    for run in runs[1:]:
        _check_same_data(runs[0], run)
    return runs


def find_disagreements(runs: Sequence[Run]) -> list[Disagreement]:
    """The images whose ranks within their class differ most between the runs, largest first."""
    by_class: dict[str, list[Key]] = {}
    for key in runs[0].scores:
        by_class.setdefault(key[0], []).append(key)
    images = []
    for keys in by_class.values():
        ranks = [percentiles([run.scores[key].score for key in keys]) for run in runs]
        images += [
            Disagreement(runs[0].scores[key], tuple(row))
            for key, row in zip(keys, np.transpose(ranks).tolist(), strict=True)
        ]
    images = [image for image in images if image.spread > 0]
    return sorted(images, key=lambda image: -image.spread)[:MAX_DISAGREEMENTS]


def percentiles(scores: Sequence[float]) -> np.ndarray:
    """Ranks from 0 to 100; equal scores share the middle of their ranks."""
    if len(scores) < 2:
        return np.zeros(len(scores))
    return 100 * (rankdata(scores) - 1) / (len(scores) - 1)


def differing_settings(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Setting -> its value in each run, for those that are not the same in all; "" if missing."""
    flat = [dict(flatten(run.manifest["config"])) for run in runs]
    names = dict.fromkeys(name for settings in flat for name in settings)
    rows = {name: [settings.get(name, "") for settings in flat] for name in names}
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def _check_same_data(first: Run, other: Run) -> None:
    """Compares the fingerprints, the classes, and the images if both runs list them."""
    key = "test_fingerprint"
    if not all(key in run.manifest for run in (first, other)):
        key = "data_fingerprint"
    if first.manifest[key] != other.manifest[key] or set(first.result["classes"]) != set(
        other.result["classes"]
    ):
        raise UserError(
            f"{first.path} and {other.path} were evaluated on different data "
            f"({_data(first)}; {_data(other)}); compare runs on one data set with the same classes"
        )
    if first.scores is None or other.scores is None:
        return
    differ = sorted(_images(first) ^ _images(other))
    if differ:
        raise UserError(
            f"{first.path} and {other.path} were evaluated on different images, such as "
            f"{differ[0][1]}; evaluate both again on the same data set"
        )


def _images(run: Run) -> set[tuple[str, str, int]]:
    return {(row.class_name, row.filename, row.label) for row in run.scores.values()}


def _data(run: Run) -> str:
    name = run.manifest["config"]["data"]["dataset"]
    return f"{name} {run.manifest['data_fingerprint'][:8]}, {len(run.result['classes'])} classes"


def unique_labels(directories: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that are all different."""
    paths = [path.resolve() for path in directories]
    if len(set(paths)) < len(paths):
        raise UserError("a run is given twice; give the folders of different runs")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in paths]


def flatten(config: Mapping, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields dotted names of settings and their values as JSON."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, json.dumps(value)
