"""Runs that differ only in their seeds, as one run with mean and spread."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from promptmad_jax.reporting.compared_runs import Run, differing_settings, flatten, unique_labels
from promptmad_jax.reporting.tables import HEADLINES
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import write_text_atomic

SEEDS = ("train.seed", "memory.seed")


def group_seeds(runs: Sequence[Run]) -> list[Run]:
    """Merges the runs whose settings differ only in `SEEDS`; the order stays.

    A group has the mean figures of its runs, the images and pictures of the first, and the name of
    the folder that holds them.

    Raises:
      UserError: the runs of a group have different metrics or ended at different steps.
    """
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        settings = dict(flatten(run.manifest["config"]))
        key = tuple((name, value) for name, value in settings.items() if name not in SEEDS)
        groups.setdefault(key, []).append(run)
    homes = [Path(os.path.commonpath([run.path.resolve() for run in g])) for g in groups.values()]
    if len(set(homes)) < len(homes):
        homes = [group[0].path for group in groups.values()]
    labels = unique_labels(homes)
    return [_merge(label, group) for label, group in zip(labels, groups.values(), strict=True)]


def _merge(label: str, group: Sequence[Run]) -> Run:
    first = group[0]
    for run in group[1:]:
        if _step(run) != _step(first):
            raise UserError(
                f"{first.path} ended at step {_step(first)} and {run.path} at {_step(run)}; let "
                "both reach the same step, or compare them without --group_seeds"
            )
    merged = dataclasses.replace(first, label=label, seeds=tuple(group))
    classes, mean = merged.spread["classes"], merged.spread["mean"]
    means = {"classes": {name: _take(own, "mean") for name, own in classes.items()}}
    return dataclasses.replace(merged, result=first.result | means | {"mean": _take(mean, "mean")})


def write_summaries(directory: Path, runs: Sequence[Run]) -> None:
    """Writes LABEL.json for each run: figures and their spread, seeds, settings that differ.

    Raises:
      UserError: a file of that name is no summary, or the folder cannot be written.
    """
    settings = differing_settings(runs)
    paths = [directory / f"{run.label.replace('/', '_')}.json" for run in runs]
    for path in paths:
        if path.exists() and not _is_summary(path):
            raise UserError(f"{path} is no summary of a run: choose another --json")
    for place, run in enumerate(runs):
        own = {name: values[place] for name, values in settings.items()}
        text = json.dumps(_summary(run, own), indent=1) + "\n"
        try:
            write_text_atomic(paths[place], text)
        except OSError as error:
            raise UserError(
                f"--json={directory} cannot be written ({error.strerror}): choose another folder"
            ) from error


def _is_summary(path: Path) -> bool:
    try:
        return {"settings", "seeds", "mean"} <= json.loads(path.read_text()).keys()
    except (ValueError, AttributeError):
        return False


def _summary(run: Run, settings: Mapping[str, str]) -> dict[str, Any]:
    return {
        "dataset": run.manifest["config"]["data"]["dataset"],
        "count": run.spread["count"],
        "seeds": [one.manifest["seed"] for one in run.seeds or (run,)],
        "step": _step(run),
        "settings": {k: json.loads(v) for k, v in settings.items() if v and k not in SEEDS},
        "mean": _headlines(run.spread["mean"]),
        "classes": {name: _headlines(own) for name, own in run.spread["classes"].items()},
    }


def _headlines(figures: Mapping[str, Mapping]) -> dict[str, dict[str, float | None]]:
    """Mean and standard deviation of the `HEADLINES`, to four decimals of a percent."""
    return {
        metric: {name: _rounded(figures[metric][name]) for name in ("mean", "std")}
        for metric in HEADLINES
        if metric in figures
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _take(figures: Mapping[str, Mapping], name: str) -> dict[str, float | None]:
    return {metric: statistics[name] for metric, statistics in figures.items()}


def _step(run: Run) -> int | None:
    """The step of the evaluated state; None where it is unknown."""
    return run.result["protocol"].get("step")
