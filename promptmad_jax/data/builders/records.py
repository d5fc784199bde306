"""What a source holds (`Entry`), what is wrong with it (`Problem`), and both together (`Found`)."""

import dataclasses
import pathlib

GOOD = "good"
SPLITS = ("train", "validation", "test")
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


@dataclasses.dataclass(frozen=True)
class Entry:
    """One image of a source.

    Attributes:
      split: "train", "test" or, where the source has it, "validation" (normal images too).
      class_name: the object or texture.
      defect_type: "good" for a normal image; several names are separated by commas where
        `label_ids` says so.
      filename: name within the data set, relative, with forward slashes.
      image: the file.
      mask: the mask file, or None where the source names none.
      without_mask: what stands for a mask that the source does not name: "zero" (nothing is
        defective), "one" (everything is), or "error" (the image cannot be used).
      label_ids: where the mask holds class ids, the id of each name in `defect_type`; else empty.
    """

    split: str
    class_name: str
    defect_type: str
    filename: str
    image: pathlib.Path
    mask: pathlib.Path | None
    without_mask: str
    label_ids: tuple[int, ...] = ()

    @property
    def label(self) -> int:
        return int(self.defect_type != GOOD)


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing wrong with a source: the file, the kind of fault, the reason, what was done."""

    file: str
    kind: str
    reason: str
    action: str


@dataclasses.dataclass
class Found:
    """The listing of a source, nothing decoded yet.

    Attributes:
      source: the folder or list file.
      class_names: every class that the source names, usable or not.
      entries: images, unique by (split, filename).
      problems: what the listing alone shows.
      lists: the files that the listing was read from, where it is not the folders alone.
    """

    source: pathlib.Path
    class_names: set[str] = dataclasses.field(default_factory=set)
    entries: list[Entry] = dataclasses.field(default_factory=list)
    problems: list[Problem] = dataclasses.field(default_factory=list)
    lists: list[pathlib.Path] = dataclasses.field(default_factory=list)


def is_image_name(path: pathlib.Path) -> bool:
    """Whether the file name ends as an image's; hidden files (`._a.png`) are none."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
