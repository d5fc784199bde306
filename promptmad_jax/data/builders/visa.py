"""VisA (Zou et al., ECCV 2022) from its archive: one-class split, the type of each pixel."""

import csv
import io
import json
import pathlib
from collections.abc import Iterator

from promptmad_jax.data.builders.check import Inventory
from promptmad_jax.data.builders.known import Expected, KnownBuilder, differing
from promptmad_jax.data.builders.lists import read_text
from promptmad_jax.data.builders.records import GOOD, Entry, Found, Problem
from promptmad_jax.data.paths import printable
from promptmad_jax.data.user_files import ListedFiles, folders
from promptmad_jax.runtime.errors import UserError

SPLIT_FILE = "split_csv/1cls.csv"
SINGLE_DEFECT = 916  # Defective images with one label, as counted by other projects.
_SPLIT_HEADER = ["object", "split", "label", "image", "mask"]
_LABEL_FILE = "image_anno.csv"
_LABEL_HEADER = ["image", "label", "mask"]
_UNLABELLED = "anomaly"
# The labels of each class, a fact of the data set published with it: id k in a mask of class ids
# is the k-th label. Letter case as in `image_anno.csv`.
LABELS: dict[str, list[str]] = json.loads(
    pathlib.Path(__file__).with_name("visa_labels.json").read_text()
)
_TRAIN = (900, 542, 450, 453, 450, 900, 900, 904, 901, 905, 904, 450)
_TEST = (200, 160, 150, 150, 150, 200, 200, 200, 200, 201, 201, 150)
EXPECTED = {
    name: Expected(train, test - 100, 100, None)
    for name, train, test in zip(LABELS, _TRAIN, _TEST, strict=True)
}


class Visa(KnownBuilder):
    """`tfds.builder("visa", data_dir=..., source=PATH)`: 12 classes, 8,659 + 2,162 images.

    The source is `VisA.tar` or the folder extracted from it, with `split_csv/1cls.csv` and, for
    each class, `CLASS/image_anno.csv` and `CLASS/Data`. The defect types of an image are its raw
    labels, separated by commas; `defect_ids` gives that of each pixel (see `features`).
    """

    TITLE = "VisA"
    EXPECTED = EXPECTED
    DEFECT_IDS = True
    DESCRIPTION = (
        "VisA: 12 classes, one-class split of 8,659 normal training images and 2,162 test images"
        " with 1,200 masks of class ids. Licence: CC BY 4.0."
    )
    HOMEPAGE = "https://github.com/amazon-science/spot-diff"
    CITATION = (
        "@inproceedings{zou2022spot, title={SPot-the-Difference Self-Supervised Pre-training for"
        " Anomaly Detection and Segmentation}, author={Zou, Yang and Jeong, Jongheon and Pemula,"
        " Latha and Zhang, Dongqing and Dabeer, Onkar}, booktitle={ECCV}, year={2022}}"
    )

    @classmethod
    def list_folder(cls, folder: pathlib.Path, image_dir: str) -> Found:
        del image_dir
        return _list(_root(folder))

    def review(self, inventory: Inventory) -> list[Problem]:
        problems = super().review(inventory)
        defective = [image.entry for image in inventory.images if image.entry.label]
        single = sum("," not in entry.defect_type for entry in defective)
        if problems or single == SINGLE_DEFECT:
            return problems
        return [differing("visa", [f"images with one defect label {single} of {SINGLE_DEFECT}"])]


def _root(folder: pathlib.Path) -> pathlib.Path:
    root = folder
    while not (root / SPLIT_FILE).is_file():
        inner = list(folders(root))
        if len(inner) != 1:
            raise UserError(
                f"{printable(folder)}: no {SPLIT_FILE}, which VisA's archive has; a conversion to"
                " CLASS/train/good and CLASS/test/bad has lost the defect types: prepare it with"
                " --dataset=anomaly_folder"
            )
        root = inner[0]
    return root


def _list(root: pathlib.Path) -> Found:
    path = root / SPLIT_FILE
    found, files = Found(source=root, lists=[path]), ListedFiles(root)
    labels: dict[str, dict[str, tuple[str, ...]]] = {}
    seen: set[str] = set()
    for number, row in _rows(path, _SPLIT_HEADER):
        place = f"{SPLIT_FILE}: line {number}"
        if (fault := _fault(row)) is not None:
            found.note(place, "bad_entry", fault)
        elif row[3] in seen:
            found.note(row[3], "duplicate", "listed twice", "kept once")
        else:
            seen.add(row[3])
            if row[0] not in labels:
                labels[row[0]] = _labels_of(found, root / row[0] / _LABEL_FILE)
            found.class_names.add(row[0])
            found.entries.append(_entry(found, files, row, labels[row[0]]))
    return found


def _rows(path: pathlib.Path, header: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, fields) of a CSV file with this header."""
    try:
        reader = csv.reader(io.StringIO(read_text(path), newline=""))
        first = next(reader, [])
        if first != header:
            raise UserError(
                f"{printable(path)}: begins with {','.join(first)}, not {','.join(header)};"
                " extract VisA's archive again"
            )
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise UserError(f"{printable(path)}: not a readable CSV file ({error})") from error


def _fault(row: list[str]) -> str | None:
    if len(row) != len(_SPLIT_HEADER):
        return f"{len(row)} fields instead of {len(_SPLIT_HEADER)}"
    class_name, split, label, image, mask = row
    if not class_name or not image:
        return "no class or no image"
    if split not in ("train", "test") or label not in ("normal", _UNLABELLED):
        return f"split {split}, label {label}: not train or test, normal or {_UNLABELLED}"
    if split == "train" and label != "normal":
        return "a defective image in the training list"
    return "a defect without a mask" if label != "normal" and not mask else None


def _labels_of(found: Found, path: pathlib.Path) -> dict[str, tuple[str, ...]]:
    """The labels of each image of a class, cleaned."""
    if not path.is_file():
        name = printable(path.relative_to(found.source))
        found.note(name, "labels", "no such file", "its defects are kept without a type")
        return {}
    found.lists.append(path)
    rows = (row for _, row in _rows(path, _LABEL_HEADER) if len(row) >= 2)
    return {row[0]: _clean(row[1]) for row in rows}


def _clean(text: str) -> tuple[str, ...]:
    names = (" ".join(part.split()).casefold() for part in text.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def mask_id(class_name: str, label: str) -> int:
    """The id of a label in the masks of a class; 0 for an unknown label."""
    labels = LABELS.get(class_name, [])
    return labels.index(label) + 1 if label in labels else 0


def _entry(
    found: Found, files: ListedFiles, row: list[str], labels: dict[str, tuple[str, ...]]
) -> Entry:
    class_name, split, label, image, mask = row
    names = (GOOD,) if label == "normal" else labels.get(image, ())
    if not names and labels:
        found.note(
            image, "labels", f"no label in {class_name}/{_LABEL_FILE}", "kept without a type"
        )
    return Entry(
        split=split,
        class_name=class_name,
        defect_type=",".join(names or (_UNLABELLED,)),
        filename=image,
        image=files(image),
        masks=(files(mask),) if label != "normal" else (),
        without_mask="zero" if label == "normal" else "error",
        label_ids=tuple(mask_id(class_name, name) for name in names) if label != "normal" else (),
    )
