"""Settings of the data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataConfig:
    """What is trained and evaluated on.

    Attributes:
        dataset: name of a prepared TFDS data set. data_dir: where `prepare` put it.
        image_size: S, pixels; images are resized to S x S, a multiple of 16.
        classes: names to keep; empty keeps all.
        texture_dir: folder of texture images (for example DTD) for the pseudo-anomalies; empty
            takes the training images.
        holdout: share of each class's normal training images that are kept out of training and set
            the thresholds, 0 to 0.5. At 0 the training images set them, which comes out too low.
        taxonomy: for zero-shot detectors, which defect folder is of which type, see
            `find_taxonomy`: empty for what is shipped, "folders", or the user's file.
    """

    dataset: str = "mvtec_ad"
    data_dir: str = "data"
    image_size: int = 224
    classes: tuple[str, ...] = ()
    texture_dir: str = ""
    holdout: float = 0.0
    taxonomy: str = ""
