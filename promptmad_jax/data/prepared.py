"""Finding and reading prepared TFDS data sets; TFDS itself is imported only to read records."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator

from promptmad_jax.data.levels import PIXEL_RANGE, Levels
from promptmad_jax.data.paths import printable
from promptmad_jax.runtime.errors import UserError

_INFO = "dataset_info.json"
REPORT = "report.json"
DEFECT_IDS = "defect_ids"  # Feature of data sets whose images may have several defect types.
_ENCODED = ("image", "mask", DEFECT_IDS)
_CHUNK = 64


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A data set on disk: its name, its version, and the folder of its shards."""

    name: str
    version: str
    folder: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Row:
    """The fields of a record that describe its image; `index` is its place in the shards."""

    index: int
    class_name: str
    defect_type: str
    filename: str
    label: int


@dataclasses.dataclass(frozen=True)
class Contents:
    """The rows of a split by (class, file name), and a digest of them and their files."""

    rows: tuple[Row, ...]
    fingerprint: str


def find_prepared(dataset: str, data_dir: str) -> Prepared:
    """Finds `data_dir/dataset/VERSION`, the highest version unless `dataset` ends in `:VERSION`.

    Raises:
      UserError: it is not prepared; the message gives the command.
    """
    if "://" in data_dir:
        raise UserError(f"{data_dir}: data_dir must be a local or mounted folder")
    name, _, wanted = dataset.partition(":")
    folders = [path.parent for path in pathlib.Path(data_dir, name).glob(f"*/{_INFO}")]
    found = {folder.name: folder for folder in folders if folder.name[0].isdigit()}
    if wanted:
        found = {version: folder for version, folder in found.items() if version == wanted}
    if not name or not found:
        raise UserError(
            f"the data set {dataset} is not prepared in {data_dir}: run"
            f" `promptmad prepare --dataset={name} --source=PATH --data_dir={data_dir}`"
        )
    version = max(found, key=_version_key)
    return Prepared(name, version, found[version])


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in version.split("."))


def splits(prepared: Prepared) -> tuple[str, ...]:
    """Names of the splits that hold images.

    Raises:
      UserError: the folder's description is damaged, or no split holds an image.
    """
    names = tuple(name for name, count in split_sizes(prepared).items() if count)
    if not names:
        raise UserError(f"{printable(prepared.folder)} holds no image: {_again(prepared)}")
    return names


def split_sizes(prepared: Prepared) -> dict[str, int]:
    """Number of images of each split, from the folder's description; no record is read.

    Raises:
      UserError: the description is damaged.
    """
    path = prepared.folder / _INFO
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))["splits"]
        return {split["name"]: sum(int(n) for n in split["shardLengths"]) for split in stored}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{printable(path)} is damaged ({error}): {_again(prepared)}") from error


def levels_of(prepared: Prepared) -> Levels | None:
    """The black and the white of source images with more than 8 bits; None where none had more."""
    try:
        report = json.loads((prepared.folder / REPORT).read_text(encoding="utf-8"))
        return Levels.from_json(report.get(PIXEL_RANGE))
    except FileNotFoundError:  # Built with TFDS, not by `prepare`.
        return None
    except (AttributeError, TypeError, ValueError) as error:
        where = printable(prepared.folder / REPORT)
        raise UserError(f"{where} is damaged ({error}): {_again(prepared)}") from error


def _again(prepared: Prepared) -> str:
    return f"run `promptmad prepare --dataset={prepared.name} --overwrite ...` again"


def has_defect_ids(prepared: Prepared) -> bool:
    """Returns True if the records hold the defect type of each pixel."""
    import tensorflow_datasets as tfds

    return DEFECT_IDS in tfds.builder_from_directory(prepared.folder).info.features


def shard_stamps(prepared: Prepared) -> dict[str, list[int]]:
    """Size and time of every shard; while these are unchanged, so are the contents."""
    paths = sorted(prepared.folder.glob("*array_record*"))
    return {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in paths}


def read_contents(prepared: Prepared, split: str) -> Contents:
    """Reads all records of a split without decoding their images."""
    digests = {}
    for index, record in enumerate(read_records(prepared, split)):
        row = Row(
            index=index,
            class_name=_text(record["class_name"]),
            defect_type=_text(record["defect_type"]),
            filename=_text(record["filename"]),
            label=int(record["label"]),
        )
        encoded = (record[name] for name in _ENCODED if name in record)
        digests[row] = b"".join(hashlib.sha256(data).digest() for data in encoded)
    rows = tuple(sorted(digests, key=lambda row: (row.class_name, row.filename)))
    total = hashlib.sha256()
    for row in rows:
        fields = [row.class_name, row.defect_type, row.filename, row.label]
        total.update(json.dumps(fields).encode() + digests[row])
    return Contents(rows, total.hexdigest())


def read_records(
    prepared: Prepared, split: str, order: tuple[int, ...] | None = None
) -> Iterator[dict]:
    """Yields the records of a split, with `image`, `mask` and any `defect_ids` as encoded bytes.

    Args:
      order: places in the shards; all in stored order by default.

    Raises:
      UserError: a shard is missing or damaged.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(prepared.folder)
        encoded = [name for name in _ENCODED if name in builder.info.features]
        skip = {name: tfds.decode.SkipDecoding() for name in encoded}
        source = builder.as_data_source(split, decoders=skip)
        places = list(range(len(source))) if order is None else list(order)
        for start in range(0, len(places), _CHUNK):
            yield from source.__getitems__(places[start : start + _CHUNK])
    except (OSError, ValueError, IndexError, RuntimeError) as error:
        where = f"the shards of {split} in {printable(prepared.folder)}"
        raise UserError(f"{where} cannot be read ({error}): {_again(prepared)}") from error


def _text(value: bytes | str) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else value
