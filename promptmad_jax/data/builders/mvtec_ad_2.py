"""MVTec AD 2 (Heckler-Kram et al., 2025): eight scenes under several lightings."""

import pathlib
from typing import ClassVar

from promptmad_jax.data.builders.known import KnownBuilder
from promptmad_jax.data.builders.layout import ClassLister, find_in_folder
from promptmad_jax.data.builders.records import Found
from promptmad_jax.data.user_files import folders, images_below
from promptmad_jax.runtime.names import matching

CLASSES = tuple("can fabric fruit_jelly rice sheet_metal vial wallplugs walnuts".split())
_PRIVATE = ("test_private", "test_private_mixed")


class _Lister(ClassLister):
    """`CLASS/{train,validation}/good`, `CLASS/test_public/{good,bad,ground_truth/bad}`."""

    PARTS: ClassVar[dict[str, str]] = {
        "train": "train",
        "validation": "validation",
        "test_public": "test",
    }
    PASSED_OVER = frozenset({"ground_truth"})

    def parts(self) -> dict[str, list[pathlib.Path]]:
        parts = super().parts()
        inner = [child for test in parts.get("test", []) for child in folders(test)]
        masks = [child for child in inner if matching(child.name) in self.PASSED_OVER]
        return parts | {"ground_truth": masks}

    def stray_part(self, path: pathlib.Path) -> None:
        if not path.is_dir() or matching(path.name) not in _PRIVATE:
            self.found.stray(path, f"not one of {', '.join((*self.PARTS, *_PRIVATE))}")
            return
        number = len(images_below(path)[0])
        reason = f"{number} images without ground truth, which only the benchmark's server has"
        action = "not prepared: give the folder to promptmad predict"
        self.found.note(f"{self.found.name_of(path)}/", "private", reason, action)


class MvtecAd2(KnownBuilder):
    """`tfds.builder("mvtec_ad_2", data_dir=..., source=PATH)`: 8 classes, over 8,000 images.

    `test_public` becomes the split "test"; `validation`, normal images, a split of its own. The
    private test sets have no ground truth: the report names them and they are left out. The only
    defect type is `bad`; counts by class are not published.
    """

    name = "mvtec_ad_2"  # TFDS would make it mvtec_ad2.
    TITLE = "MVTec AD 2"
    EXPECTED = dict.fromkeys(CLASSES)
    DESCRIPTION = (
        "MVTec AD 2: eight scenes under several lightings, over 8,000 images; the public test set"
        " alone has masks. Licence: CC BY-NC-SA 4.0."
    )
    HOMEPAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad-2"
    CITATION = (
        "@article{heckler2025mvtec, title={The MVTec AD 2 Dataset: Advanced Scenarios for"
        " Unsupervised Anomaly Detection}, author={Heckler-Kram, Lars and Neudeck, Jan-Hendrik and"
        ' Scheler, Ulla and K{\\"o}nig, Rebecca and Steger, Carsten}, journal={arXiv}, year={2025}}'
    )

    @classmethod
    def list_folder(cls, folder: pathlib.Path, image_dir: str) -> Found:
        return find_in_folder(folder, image_dir, _Lister)
