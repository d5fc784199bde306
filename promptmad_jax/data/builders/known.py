"""Builders of published data sets: their classes, and how many images each should have."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from promptmad_jax.data.builders.check import Inventory, counts
from promptmad_jax.data.builders.folder_builder import FolderBuilder
from promptmad_jax.data.builders.records import GOOD, Found, Problem
from promptmad_jax.data.paths import printable
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.names import matching


class Expected(NamedTuple):
    """Published counts of one class: training images, good and defective test images, and the
    defective ones by type, or None if these are not published."""

    train: int
    good: int
    defective: int
    defects: dict[str, int] | None


def published(train: int, good: int, defects: str) -> Expected:
    """Published counts, with `defects` as "TYPE NUMBER, TYPE NUMBER"."""
    pairs = (item.rsplit(" ", 1) for item in defects.split(", "))
    numbers = {name: int(number) for name, number in pairs}
    return Expected(train, good, sum(numbers.values()), numbers)


class KnownBuilder(FolderBuilder, skip_registration=True):
    """Keeps the classes of a published data set and reports what differs from its counts.

    Attributes:
      TITLE: the name of the data set in words.
      EXPECTED: class -> counts, or None if they are not published.
    """

    TITLE = ""
    EXPECTED: Mapping[str, Expected | None] = MappingProxyType({})

    def select(self, found: Found) -> Found:
        spellings = {matching(name): name for name in self.EXPECTED}
        known = {name: spellings.get(matching(name), "") for name in found.class_names}
        if not any(known.values()):
            raise UserError(
                f"{printable(found.source)}: has none of the {len(self.EXPECTED)} classes of"
                f" {self.TITLE}"
                f" (found: {', '.join(sorted(found.class_names))});"
                " prepare a data set of your own with --dataset=anomaly_folder"
            )
        for name in sorted(name for name in known if not known[name]):
            found.note(name, "stray", f"not a class of {self.TITLE}", "ignored")
        entries = [
            replace(entry, class_name=known[entry.class_name])
            for entry in found.entries
            if known[entry.class_name]
        ]
        types = {
            key: (known[name], defect)
            for key, (name, defect) in found.types.items()
            if known.get(name)
        }
        names = set(filter(None, known.values()))
        return replace(found, class_names=names, types=types, entries=entries)

    def review(self, inventory: Inventory) -> list[Problem]:
        usable = counts(inventory)
        problems = []
        for name, expected in self.EXPECTED.items():
            if name not in usable:
                problems.append(Problem(name, "count", "the class is missing", "prepared without"))
            elif expected and (differences := _differences(usable[name], expected)):
                problems.append(differing(name, differences))
        return problems


def differing(name: str, differences: list[str]) -> Problem:
    """The problem of a class or data set whose counts differ from the published ones."""
    reason = f"differs from the published data set: {', '.join(differences)}"
    return Problem(name, "count", reason, "prepared as it is")


def _differences(row: dict, expected: Expected) -> list[str]:
    pairs = [("train", row["train"], expected.train)]
    pairs.append((f"test/{GOOD}", row["test"].get(GOOD, 0), expected.good))
    if expected.defects is not None:
        pairs += _by_type(row["test"], expected.defects)
    pairs.append(("masks", row["masks"], expected.defective))
    return [f"{what} {have} of {want}" for what, have, want in pairs if have != want]


def _by_type(have: dict[str, int], want: dict[str, int]) -> list[tuple[str, int, int]]:
    pairs = [(f"test/{name}", have.get(name, 0), number) for name, number in want.items()]
    new = (name for name in have if name != GOOD and name not in want)
    return pairs + [(f"test/{name}", have[name], 0) for name in new]
