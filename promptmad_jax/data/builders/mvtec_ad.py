"""MVTec-AD (Bergmann et al., CVPR 2019) from its official archive or the extracted folder."""

import pathlib

from promptmad_jax.data.builders.known import KnownBuilder, published

EXPECTED = {
    "bottle": published(209, 20, "broken_large 20, broken_small 22, contamination 21"),
    "cable": published(
        224,
        58,
        "bent_wire 13, cable_swap 12, combined 11, cut_inner_insulation 14,"
        " cut_outer_insulation 10, missing_cable 12, missing_wire 10, poke_insulation 10",
    ),
    "capsule": published(219, 23, "crack 23, faulty_imprint 22, poke 21, scratch 23, squeeze 20"),
    "carpet": published(280, 28, "color 19, cut 17, hole 17, metal_contamination 17, thread 19"),
    "grid": published(264, 21, "bent 12, broken 12, glue 11, metal_contamination 11, thread 11"),
    "hazelnut": published(391, 40, "crack 18, cut 17, hole 18, print 17"),
    "leather": published(245, 32, "color 19, cut 19, fold 17, glue 19, poke 18"),
    "metal_nut": published(220, 22, "bent 25, color 22, flip 23, scratch 23"),
    "pill": published(
        267,
        26,
        "color 25, combined 17, contamination 21, crack 26, faulty_imprint 19, pill_type 9,"
        " scratch 24",
    ),
    "screw": published(
        320,
        41,
        "manipulated_front 24, scratch_head 24, scratch_neck 25, thread_side 23, thread_top 23",
    ),
    "tile": published(230, 33, "crack 17, glue_strip 18, gray_stroke 16, oil 18, rough 15"),
    "toothbrush": published(60, 12, "defective 30"),
    "transistor": published(213, 60, "bent_lead 10, cut_lead 10, damaged_case 10, misplaced 10"),
    "wood": published(247, 19, "color 8, combined 11, hole 10, liquid 10, scratch 21"),
    "zipper": published(
        240,
        32,
        "broken_teeth 19, combined 16, fabric_border 17, fabric_interior 16, rough 17,"
        " split_teeth 18, squeezed_teeth 16",
    ),
}
_ARCHIVE = "mvtec_anomaly_detection.tar.xz"


class MvtecAd(KnownBuilder):
    """`tfds.builder("mvtec_ad", data_dir=..., source=PATH)`: 15 classes, 3,629 + 1,725 images.

    The source is `mvtec_anomaly_detection.tar.xz`, or the folder extracted from it, or a part of
    that. Counts that differ from the published ones are in `report.json`, class by class.
    """

    TITLE = "MVTec-AD"
    EXPECTED = EXPECTED
    DESCRIPTION = (
        "MVTec-AD: 15 classes of objects and textures, 3,629 normal training images, 1,725 test"
        " images with 1,258 masks in 73 defect types. Licence: CC BY-NC-SA 4.0."
    )
    HOMEPAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad"
    CITATION = (
        "@inproceedings{bergmann2019mvtec, title={MVTec AD -- A Comprehensive Real-World Dataset"
        " for Unsupervised Anomaly Detection}, author={Bergmann, Paul and Fauser, Michael and"
        " Sattlegger, David and Steger, Carsten}, booktitle={CVPR}, year={2019}}"
    )

    def default_source(self, manual_dir: pathlib.Path) -> str:
        """The archive in TFDS' manual folder where it is there, else that folder."""
        archive = manual_dir / _ARCHIVE
        return str(archive if archive.exists() else manual_dir)
