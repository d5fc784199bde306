"""Real-IAD (Wang et al., CVPR 2024): 30 products from five views, by its JSON lists."""

import json
import pathlib

from promptmad_jax.data.builders.check import Inventory
from promptmad_jax.data.builders.known import KnownBuilder, differing
from promptmad_jax.data.builders.lists import read_text
from promptmad_jax.data.builders.records import GOOD, SPLITS, Entry, Found, Problem
from promptmad_jax.data.paths import printable
from promptmad_jax.data.user_files import ListedFiles, children
from promptmad_jax.runtime.errors import UserError

CLASSES = tuple(
    (
        "audiojack bottle_cap button_battery end_cap eraser fire_hood mint mounts pcb "
        "phone_battery plastic_nut plastic_plug porcelain_doll regulator rolled_strip_base "
        "sim_card_set switch tape terminalblock toothbrush toy toy_brick transistor1 u_block usb "
        "usb_adaptor vcpill wooden_beads woodstick zipper"
    ).split()
)
# Folder of lists -> number of images of train and test. The noisy lists are not checked.
PUBLISHED = {"realiad_jsons": (36_465, 114_585), "realiad_jsons_sv": (10_408, 19_802)}
_LISTS = "realiad_jsons"
_IMAGES = ("realiad_256", "realiad_512", "realiad_1024", "realiad_raw")
_KEYS = ("category", "anomaly_class", "image_path", "mask_path")


class RealIad(KnownBuilder):
    """`tfds.builder("real_iad", data_dir=..., source=PATH)`: 30 classes, 151,050 images.

    The source holds `realiad_{256,512,1024,raw}/CLASS` and `realiad_jsons/CLASS.json`; or it is a
    folder of lists itself, `realiad_jsons_sv` for the single view. `image_dir` names the folder of
    the images, such as `realiad_256`, if the source has several. The lists alone decide what is
    normal: many images below `NG` are, because their view does not show the defect. Defect types
    are the codes of the folders: AK, BX, CH, HS, PS, QS, YW, ZW.
    """

    TITLE = "Real-IAD"
    EXPECTED = dict.fromkeys(CLASSES)
    DESCRIPTION = (
        "Real-IAD: 30 products from five views, 151,050 images with 51,329 masks in 8 defect"
        " types. Licence: CC BY-NC-SA 4.0, as others state it; given on request."
    )
    HOMEPAGE = "https://realiad4ad.github.io/Real-IAD"
    CITATION = (
        "@inproceedings{wang2024real, title={Real-IAD: A Real-World Multi-View Dataset for"
        " Benchmarking Versatile Industrial Anomaly Detection}, author={Wang, Chengjie and Zhu,"
        " Wenbing and Gao, Bin-Bin and others}, booktitle={CVPR}, year={2024}}"
    )

    @classmethod
    def list_folder(cls, folder: pathlib.Path, image_dir: str) -> Found:
        lists = _lists(folder)
        found = Found(source=_images(lists, folder, image_dir), lists=lists)
        files = ListedFiles(found.source)
        for path in lists:
            _add(found, files, path)
        return found

    def review(self, inventory: Inventory) -> list[Problem]:
        problems = super().review(inventory)
        have = tuple(len(inventory.of_split(split)) for split in SPLITS if split != "validation")
        if problems or have in PUBLISHED.values():
            return problems
        want = " or ".join(f"{train} + {test}" for train, test in PUBLISHED.values())
        return [differing("real_iad", [f"images {have[0]} + {have[1]} of {want}"])]


def _lists(folder: pathlib.Path) -> list[pathlib.Path]:
    """The lists in the folder itself, or in `realiad_jsons` one or two levels below it."""
    for place in (folder, folder / _LISTS, folder / _LISTS / _LISTS):
        inside = children(place) if place.is_dir() else []
        lists = [path for path in inside if path.suffix.lower() == ".json"]
        if lists:
            return lists
    raise UserError(
        f"{printable(folder)}: no CLASS.json in it or in {_LISTS}; give the folder that holds"
        f" {_LISTS} and the images, or a folder of lists"
    )


def _images(lists: list[pathlib.Path], folder: pathlib.Path, image_dir: str) -> pathlib.Path:
    if image_dir:
        chosen = pathlib.Path(image_dir).expanduser().absolute()
        if not chosen.is_dir():
            raise UserError(f"{printable(chosen)}: no such folder; check --image_dir")
        return chosen
    places = dict.fromkeys((folder, *list(lists[0].parents)[:3]))
    there = [place / name for place in places for name in _IMAGES if (place / name).is_dir()]
    if len(there) == 1:
        return there[0]
    what = "no" if not there else "more than one"
    names = ", ".join(_IMAGES) if not there else ", ".join(printable(path) for path in there)
    raise UserError(
        f"{printable(folder)}: {what} folder of images ({names}); name it with --image_dir"
    )


def _add(found: Found, files: ListedFiles, path: pathlib.Path) -> None:
    try:
        document = json.loads(read_text(path))
        meta = document["meta"]
        prefix, normal = meta["prefix"], meta["normal_class"]
        splits = {split: list(document[split]) for split in ("train", "test")}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{printable(path)}: not a list of Real-IAD ({error!r})") from error
    found.class_names.add(path.stem)
    for split, items in splits.items():
        for number, item in enumerate(items):
            where = f"{path.name}: {split}[{number}]"
            if (fault := _fault(item, path.stem, split, normal)) is not None:
                found.note(where, "bad_entry", fault)
            else:
                found.entries.append(_entry(files, prefix, split, item, normal))


def _fault(item: object, class_name: str, split: str, normal: str) -> str | None:
    if not isinstance(item, dict) or any(key not in item for key in _KEYS):
        return f"no object with {', '.join(_KEYS)}"
    if not all(isinstance(item[key], str) and item[key] for key in _KEYS[:3]):
        return "a name is missing"
    if item["category"] != class_name:
        return f"of the category {item['category']}"
    if split == "train" and item["anomaly_class"] != normal:
        return "a defective image in the training list"
    return None


def _entry(files: ListedFiles, prefix: str, split: str, item: dict, normal: str) -> Entry:
    defective = item["anomaly_class"] != normal
    folder = prefix.strip("/")
    image = files(f"{folder}/{item['image_path']}".lstrip("/"))
    mask = files(f"{folder}/{item['mask_path']}".lstrip("/")) if item["mask_path"] else None
    return Entry(
        split=split,
        class_name=item["category"],
        defect_type=item["anomaly_class"] if defective else GOOD,
        filename=files.name_of(image),
        image=image,
        masks=(mask,) if mask and defective else (),
        without_mask="error" if defective else "zero",
    )
