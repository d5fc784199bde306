"""BTAD, the beanTech anomaly detection data set (Mishra et al., ISIE 2021)."""

from promptmad_jax.data.builders.known import KnownBuilder, published

EXPECTED = {
    "01": published(400, 21, "ko 49"),
    "02": published(399, 30, "ko 200"),
    "03": published(1000, 400, "ko 41"),
}


class Btad(KnownBuilder):
    """`tfds.builder("btad", data_dir=..., source=PATH)`: 3 classes, 1,799 + 741 images.

    The source holds `CLASS/train/ok`, `CLASS/test/{ok,ko}` and `CLASS/ground_truth/ko`; images and
    masks are .bmp or .png, each with its own extension, and masks are named as their images. The
    one defect type is `ko`.
    """

    TITLE = "BTAD"
    EXPECTED = EXPECTED
    DESCRIPTION = (
        "BTAD: three industrial products, 1,799 normal training images, 741 test images with 290"
        " masks, without defect types. Licence: CC BY-NC-SA 4.0, as others state it."
    )
    HOMEPAGE = "https://github.com/pankajmishra000/VT-ADL"
    CITATION = (
        "@inproceedings{mishra2021vt, title={VT-ADL: A Vision Transformer Network for Image Anomaly"
        " Detection and Localization}, author={Mishra, Pankaj and Verk, Riccardo and Fornasier,"
        " Daniele and Piciarelli, Claudio and Foresti, Gian Luca}, booktitle={ISIE}, year={2021}}"
    )
