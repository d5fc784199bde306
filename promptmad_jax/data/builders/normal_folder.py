"""Good parts alone: plain folders of pictures, without tests, defects or masks."""

import pathlib

from promptmad_jax.data.builders.folder_builder import FolderBuilder
from promptmad_jax.data.builders.layout import is_class
from promptmad_jax.data.builders.records import GOOD, Entry, Found
from promptmad_jax.data.paths import name_fault, printable
from promptmad_jax.data.user_files import children, folders, images_below, is_image, no_images
from promptmad_jax.runtime.errors import UserError


class NormalFolder(FolderBuilder):
    """`tfds.builder("normal_folder", data_dir=..., source=PATH)`.

    The source is a folder, or an archive of one, of which every picture shows a good part. Each
    sub-folder is a class, with the pictures below it; a folder without sub-folders is one class of
    its own name. `CLASS/ignore.png` is painted where pixels do not count.
    """

    DESCRIPTION = "Images of normal objects from a folder of the user, to train on."

    @classmethod
    def list_folder(cls, folder: pathlib.Path, image_dir: str) -> Found:
        """Lists the pictures.

        Raises:
          UserError: no picture is found, or the folder has the layout of other data sets, whose
            test images would be taken for good ones.
        """
        del image_dir
        root = _classes_root(folder)
        inner = [child for child in folders(root) if images_below(child)[0]]
        for place in (root, *inner):
            if is_class(place):
                raise UserError(
                    f"{printable(place)} has folders called train or test: give "
                    "--dataset=anomaly_folder, or the folder of the good images as --source"
                )
        found = Found(source=root if inner else root.parent)
        for place in inner or [root]:
            _add_class(found, place)
        for child in children(root) if inner else []:
            if child not in inner:
                found.stray(child, "lies beside the folders of the classes")
        return found


def _classes_root(folder: pathlib.Path) -> pathlib.Path:
    """The first folder on the way down that holds pictures or several folders."""
    root = folder
    while not any(map(is_image, children(root))):
        inner = list(folders(root))
        if not inner:
            raise UserError(f"{printable(folder)} holds no picture: expected CLASS/*.png or *.png")
        if len(inner) > 1 or any(map(is_image, children(inner[0]))):
            break
        root = inner[0]
    return root


def _add_class(found: Found, folder: pathlib.Path) -> None:
    name = printable(folder.name)
    images, others = images_below(folder)
    if fault := name_fault(name):
        action = f"class left out, with {len(images)} images"
        found.note(repr(name), "empty_class", fault, action)
        return
    found.add_class(name)
    if others:
        found.note(f"{found.name_of(folder)}/", "stray", no_images(others), "ignored")
    for path in images:
        if path.parent == folder and found.take_mask(name, path):
            continue
        found.entries.append(
            Entry("train", name, GOOD, found.name_of(path), path, masks=(), without_mask="zero")
        )
