"""Small trees in the true layouts of published data sets."""

import csv
import json
import pathlib

import numpy as np

from tests.data.image_trees import pixels, spot, write_image

VISA_IMAGES = {"train": ("0000", "0002"), "test": ("0001",)}


def write_btad(root: pathlib.Path) -> pathlib.Path:
    """01: .bmp images with .png masks; 02: .png throughout; 03: .bmp throughout."""
    for name, image, mask in (("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")):
        write_image(root / name / "train" / "ok" / f"0000.{image}", pixels(1))
        write_image(root / name / "test" / "ok" / f"0001.{image}", pixels(2))
        write_image(root / name / "test" / "ko" / f"0002.{image}", pixels(3))
        write_image(root / name / "ground_truth" / "ko" / f"0002.{mask}", spot())
    return root


def write_mad(root: pathlib.Path, toy: str, defects: tuple[str, ...]) -> pathlib.Path:
    write_image(root / toy / "train" / "good" / "0.png", pixels(1))
    write_image(root / toy / "test" / "good" / "0.png", pixels(2))
    for defect in defects:
        write_image(root / toy / "test" / defect / "0.png", pixels(3))
        write_image(root / toy / "ground_truth" / defect / "0_mask.png", spot())
    for name in ("transforms.json", "license", "readme.txt"):
        (root / toy / name).write_text("{}")
    return root


def write_mvtec_ad_2(root: pathlib.Path, name: str = "can") -> pathlib.Path:
    base = root / name
    write_image(base / "train" / "good" / "000_regular.png", pixels(1))
    write_image(base / "validation" / "good" / "001_regular.png", pixels(2))
    write_image(base / "test_public" / "good" / "000_regular.png", pixels(3))
    for light in ("regular", "overexposed"):
        write_image(base / "test_public" / "bad" / f"000_{light}.png", pixels(4))
        mask = base / "test_public" / "ground_truth" / "bad" / f"000_{light}_mask.png"
        write_image(mask, spot())
    write_image(base / "test_private" / "000_regular.png", pixels(5))
    write_image(base / "test_private_mixed" / "000_mixed.png", pixels(6))
    write_image(base / "test_private_mixed" / "001_mixed.png", pixels(6))
    return root


def regions(*values: int) -> np.ndarray:
    """A mask of class ids: a block of 3 x 4 pixels for each value, side by side."""
    mask = np.zeros((20, 24), np.uint8)
    for place, value in enumerate(values):
        mask[5:8, 2 + 5 * place : 6 + 5 * place] = value
    return mask


def write_visa(root: pathlib.Path, defects: dict[str, list[tuple[str, np.ndarray]]]):
    """class -> labels as `image_anno.csv` has them, and the mask of ids, of each defective image;
    two normal training images and one for the test of each class."""
    split_rows = [["object", "split", "label", "image", "mask"]]
    for name, images in defects.items():
        rows = [["image", "label", "mask"]]
        for split, stems in VISA_IMAGES.items():
            for stem in stems:
                image = f"{name}/Data/Images/Normal/{stem}.JPG"
                write_image(root / image, pixels(int(stem)))
                split_rows.append([name, split, "normal", image, ""])
                rows.append([image, "normal", ""])
        for number, (labels, mask) in enumerate(images):
            image = f"{name}/Data/Images/Anomaly/{number:03}.JPG"
            mask_name = f"{name}/Data/Masks/Anomaly/{number:03}.png"
            write_image(root / image, pixels(50 + number))
            write_image(root / mask_name, mask)
            split_rows.append([name, "test", "anomaly", image, mask_name])
            rows.append([image, labels, mask_name])
        write_csv(root / name / "image_anno.csv", rows)
    write_csv(root / "split_csv" / "1cls.csv", split_rows)
    return root


def write_csv(path: pathlib.Path, rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def write_real_iad(root: pathlib.Path, name: str = "usb", size: str = "256") -> pathlib.Path:
    """A normal and a defective object from two views; the second view does not show the defect."""
    base = root / f"realiad_{size}" / name
    train, test = [], []

    def item(image: str, code: str, mask: str | None = None) -> dict:
        fields = {"category": name, "anomaly_class": code, "image_path": image, "mask_path": mask}
        write_image(base / image, pixels(len(image)))
        if mask:
            write_image(base / mask, spot())
        return fields

    for number in (1, 2):
        stem = f"OK/S0001/{name}_0001_OK_C{number}_20231021"
        train.append(item(f"{stem}.jpg", "OK"))
    for number, code in ((1, "HS"), (2, "OK")):
        stem = f"NG/HS/S0002/{name}_0002_NG_HS_C{number}_20231021"
        test.append(item(f"{stem}.jpg", code, f"{stem}.png" if code == "HS" else None))
    document = {"meta": {"normal_class": "OK", "prefix": f"{name}/"}, "train": train, "test": test}
    for folder, views in (("realiad_jsons", 2), ("realiad_jsons_sv", 1)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        part = {**document, "train": train[:views], "test": test[:views]}
        (root / folder / f"{name}.json").write_text(json.dumps(part))
    return root
