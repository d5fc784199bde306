"""The listing of a source: its images (`Entry`), its faults (`Problem`), and both (`Found`)."""

import os
import pathlib
from dataclasses import dataclass, field

from promptmad_jax.data.paths import printable
from promptmad_jax.data.user_files import images_below, is_image
from promptmad_jax.runtime.names import matching

GOOD = "good"
SPLITS = ("train", "validation", "test")
LEFT_OUT = "left out"
_IGNORED = "ignore"


@dataclass(frozen=True)
class Entry:
    """One image of a source.

    Attributes:
      split: "train", "test" or, if the source has it, "validation" (normal images too).
      class_name: the object or texture.
      defect_type: "good" for a normal image; several names are separated by commas.
      filename: name within the data set, relative, with forward slashes.
      image: the file.
      masks: the mask files, whose union is the mask; empty if the source names none.
      without_mask: meaning of a missing mask: "zero" (nothing is defective), "one" (everything
        is), or "error" (the image cannot be used).
      label_ids: for one mask that holds class ids, the id of each name in `defect_type`; else
        empty.
    """

    split: str
    class_name: str
    defect_type: str
    filename: str
    image: pathlib.Path
    masks: tuple[pathlib.Path, ...]
    without_mask: str
    label_ids: tuple[int, ...] = ()

    @property
    def label(self) -> int:
        return int(self.defect_type != GOOD)


@dataclass(frozen=True)
class Problem:
    """A fault of a source: the file, the kind of fault, the reason, and what was done."""

    file: str
    kind: str
    reason: str
    action: str = LEFT_OUT


@dataclass
class Found:
    """The listing of a source, nothing decoded yet.

    Attributes:
      source: the folder or list file.
      class_names: every class that the source names, usable or not.
      types: (class, defect type) as they are matched -> their names as first spelled, for every
        folder and list entry of the test split.
      entries: images, unique by (split, filename).
      problems: faults that the listing alone shows.
      lists: the files that the listing was read from, if not from the folders alone.
      ignored: masks of the pixels that do not count, by class.
    """

    source: pathlib.Path
    class_names: set[str] = field(default_factory=set)
    types: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    lists: list[pathlib.Path] = field(default_factory=list)
    ignored: dict[str, pathlib.Path] = field(default_factory=dict)

    def note(self, file: str, kind: str, reason: str, action: str = LEFT_OUT) -> None:
        """Adds a problem."""
        self.problems.append(Problem(file, kind, reason, action))

    def stray(self, path: pathlib.Path, reason: str) -> None:
        """Adds the problem of a file or folder that is not part of the layout."""
        name = self.name_of(path)
        if path.is_dir():
            images, _ = images_below(path)
            name, reason = f"{name}/", reason + (f"; {len(images)} images in it" if images else "")
        self.note(name, "stray", reason, "ignored")

    def name_of(self, path: pathlib.Path) -> str:
        """The path of a file relative to the source."""
        return printable(os.path.relpath(path, self.source))

    def add_class(self, name: str) -> None:
        """Adds a class; notes another one whose name differs in case or Unicode alone."""
        if other := next((n for n in self.class_names if matching(n) == matching(name)), None):
            reason = f"differs from the class {other} in case or Unicode alone"
            self.note(name, "name", reason, "kept as a class of its own")
        self.class_names.add(name)

    def take_mask(self, class_name: str, path: pathlib.Path) -> bool:
        """Takes `ignore.png` of a class folder as the mask of what does not count; returns False
        for other files."""
        is_mask = is_image(path) and matching(path.stem) == _IGNORED
        if is_mask:
            self.ignored[class_name] = path
        return is_mask

    def first_spelling(self, name: str) -> str:
        """Adds a class of a list; returns its name as it was first spelled."""
        first = next((n for n in self.class_names if matching(n) == matching(name)), name)
        self._note_spelling(name, name, first)
        self.class_names.add(first)
        return first

    def add_type(self, class_name: str, defect_type: str) -> str:
        """Adds a defect type of a class; returns its name as it was first spelled."""
        key = (class_name, matching(defect_type))
        _, first = self.types.setdefault(key, (class_name, defect_type))
        self._note_spelling(f"{class_name}/{defect_type}", defect_type, first)
        return first

    def _note_spelling(self, place: str, name: str, first: str) -> None:
        remark = Problem(place, "name", f"another spelling of {first}", f"read as {first}")
        if name != first and remark not in self.problems:
            self.problems.append(remark)
