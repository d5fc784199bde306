"""MPDD, metal parts (Jezek et al., ICUMT 2021)."""

from promptmad_jax.data.builders.known import KnownBuilder, published

EXPECTED = {
    "bracket_black": published(289, 32, "hole 12, scratches 35"),
    "bracket_brown": published(185, 26, "bend_and_parts_mismatch 17, parts_mismatch 34"),
    "bracket_white": published(110, 30, "defective_painting 13, scratches 17"),
    "connector": published(128, 30, "parts_mismatch 14"),
    "metal_plate": published(54, 26, "major_rust 14, scratches 34, total_rust 23"),
    "tubes": published(122, 32, "flattening 69"),
}


class Mpdd(KnownBuilder):
    """`tfds.builder("mpdd", data_dir=..., source=PATH)`: 6 classes, 888 + 458 images.

    The source is a folder or an archive in MVTec layout.
    """

    TITLE = "MPDD"
    EXPECTED = EXPECTED
    DESCRIPTION = (
        "MPDD: six classes of painted metal parts, 888 normal training images, 458 test images"
        " with 282 masks. The licence is not stated."
    )
    HOMEPAGE = "https://github.com/stepanje/MPDD"
    CITATION = (
        "@inproceedings{jezek2021deep, title={Deep learning-based defect detection of metal parts:"
        " evaluating current methods in complex conditions}, author={Jezek, Stepan and Jonak,"
        " Martin and Burget, Radim and Dvorak, Pavel and Skotak, Milos}, booktitle={ICUMT},"
        " year={2021}}"
    )
