"""Any data set of one's own in the field's layout or lists."""

from promptmad_jax.data.builders.folder_builder import FolderBuilder


class AnomalyFolder(FolderBuilder):
    """`tfds.builder("anomaly_folder", data_dir=..., source=PATH)`.

    The source is a folder with `CLASS/train/good`, `CLASS/test/DEFECT` and
    `CLASS/ground_truth/DEFECT/*_mask.png`, one such CLASS folder, an archive of these, or a list
    file (JSON lines of UniAD and OneNIP, or a `meta.json`; see `builders.lists`).
    """

    DESCRIPTION = "Images of normal and defective objects with masks, from a folder of the user."
