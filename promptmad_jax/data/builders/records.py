"""The listing of a source: its images (`Entry`), its faults (`Problem`), and both (`Found`)."""

import pathlib
from dataclasses import dataclass, field

from promptmad_jax.data.paths import printable

GOOD = "good"
SPLITS = ("train", "validation", "test")
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
LEFT_OUT = "left out"


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
      entries: images, unique by (split, filename).
      problems: faults that the listing alone shows.
      lists: the files that the listing was read from, if not from the folders alone.
    """

    source: pathlib.Path
    class_names: set[str] = field(default_factory=set)
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    lists: list[pathlib.Path] = field(default_factory=list)

    def note(self, file: str, kind: str, reason: str, action: str = LEFT_OUT) -> None:
        """Adds a problem."""
        self.problems.append(Problem(file, kind, reason, action))

    def stray(self, path: pathlib.Path, reason: str) -> None:
        """Adds the problem of a file or folder that is not part of the layout."""
        name = printable(path.relative_to(self.source)) + ("/" if path.is_dir() else "")
        self.note(name, "stray", reason, "ignored")


def is_image_name(path: pathlib.Path) -> bool:
    """Returns True for the file name of an image; hidden files (`._a.png`) are none."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
