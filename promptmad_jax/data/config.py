"""Settings of the data."""

from dataclasses import dataclass
from typing import Annotated

from promptmad_jax.runtime.field_types import ImageSize, Range


@dataclass(frozen=True)
class DataConfig:
    """The data set that a run is evaluated on and, unless it is zero-shot, trained on.

    Attributes:
        dataset: name of a prepared TFDS data set; empty for a run that has added images alone.
        data_dir: folder that `prepare` wrote it to.
        cache_dir: folder for resized images and features; empty for `data_dir`.
        image_size: side S of the images in pixels, a multiple of what the backbone takes (16 for
            EfficientNets); they are resized to S x S.
        classes: names of the classes to keep; empty keeps all.
        texture_dir: folder of texture images (for example DTD) for the pseudo-anomalies; empty
            takes the training images.
        holdout: share of each class's normal training images that are kept out of training and set
            the thresholds. At 0 the training images set them, which makes them too low.
        taxonomy: for zero-shot detectors, the defect type of each defect folder: empty for the
            shipped taxonomy, "folders" for one type per folder, or your YAML or JSON file.
        added: trains on the images in the run's folder `added`, too; `promptmad retrain` sets it.
    """

    dataset: str = "mvtec_ad"
    data_dir: str = "data"
    cache_dir: str = ""
    image_size: ImageSize = 224
    classes: tuple[str, ...] = ()
    texture_dir: str = ""
    holdout: Annotated[float, Range(0, 0.5)] = 0.0
    taxonomy: str = ""
    added: bool = False

    @property
    def cache(self) -> str:
        """The folder of the caches."""
        return self.cache_dir or self.data_dir
