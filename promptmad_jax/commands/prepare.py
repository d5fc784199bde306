"""Builds a data set: every file is decoded first; faulty ones are named and left out."""

import contextlib
import hashlib
import io
import json
import pathlib
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping

from etils import epath

from promptmad_jax.data import image_cache
from promptmad_jax.data.levels import PIXEL_RANGE, Levels
from promptmad_jax.data.paths import printable
from promptmad_jax.data.prepared import REPORT, Prepared, find_prepared
from promptmad_jax.data.user_files import STAGING
from promptmad_jax.runtime import outputs
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.interrupts import tidied_up
from promptmad_jax.runtime.paths import absolute

SYNTHETIC = "synthetic_mvtec"
FOLDER_DATASETS = tuple(
    (
        "anomaly_folder normal_folder btad mad_real mad_sim mpdd mvtec_ad mvtec_ad_2 real_iad visa"
    ).split()
)
_SHOWN = 5  # problems of a kind on the terminal
_WARNINGS = ("empty_class", "empty_type", "no_test", "dark", "clipped")


def prepare(
    dataset: str,
    data_dir: str,
    source: str = "",
    image_dir: str = "",
    overwrite: bool = False,
    arguments: Mapping[str, object] | None = None,
    **reading: float,
) -> pathlib.Path:
    """Validates a source and writes the TFDS data set `data_dir/dataset/VERSION`.

    An existing data set is kept if its source is unchanged; otherwise it is replaced once the new
    one is complete.

    Args:
      dataset: one of `FOLDER_DATASETS`, or "synthetic_mvtec".
      data_dir: the folder of all prepared data sets.
      source: folder, archive or list; none for "synthetic_mvtec".
      image_dir: the folder that a list's names are relative to, and that of Real-IAD's images.
      overwrite: builds even if the source is unchanged.
      arguments: of the builder of "synthetic_mvtec".
      reading: `bit_depth` and `max_megapixels` of `FolderBuilder`.

    Returns:
      The folder of the prepared data set, with `report.json` in it.

    Raises:
      UserError: a wrong name or source, no usable training image, or no room to write.
    """
    if dataset not in (*FOLDER_DATASETS, SYNTHETIC):
        known = ", ".join((*FOLDER_DATASETS, SYNTHETIC))
        raise UserError(f"--dataset={dataset} is unknown; the data sets are {known}")
    kwargs = _builder_arguments(dataset, source, image_dir, reading, dict(arguments or {}))
    target = epath.Path(absolute(data_dir))
    if found := outputs.kind_of(target):
        raise UserError(
            f"--data_dir={data_dir} holds the results of `promptmad {found}`: give another folder"
        )
    outputs.check_apart(target, "--data_dir")
    old = _existing(dataset, data_dir)
    if old is None:  # Else it may stand on a read-only disk, with nothing to do.
        outputs.check_folder(data_dir, "--data_dir")
    stamp = _stamp(dataset, kwargs)
    if old is not None and not overwrite and _stamp_of(old) == stamp:
        print(f"{dataset} is prepared already in {printable(old.folder)}: nothing to do")
        print("(--overwrite builds it again)")
        return old.folder
    if old is not None:
        _refuse_other_source(old, kwargs, overwrite)
        what = f"from {printable(source)}" if "source" in kwargs else f"with {kwargs}"
        print(f"{old.name} in {printable(old.folder)} is replaced by one built {what}")
    version = pathlib.Path(target) / dataset / str(_builder_class(dataset).VERSION)
    if old is None and version.is_dir() and any(version.iterdir()):
        raise UserError(
            f"{printable(version)} holds files that are no prepared data set: move them elsewhere, "
            "or give another --data_dir"
        )
    outputs.check_folder(data_dir, "--data_dir")
    with tidied_up():
        return _build(dataset, pathlib.Path(data_dir), kwargs, stamp)


def _builder_arguments(
    dataset: str, source: str, image_dir: str, reading: dict, arguments: dict
) -> dict:
    if dataset == SYNTHETIC:
        if source or image_dir or reading:
            given = "source" if source or image_dir else min(reading)
            raise UserError(f"--dataset={SYNTHETIC} is drawn, not read: it takes no --{given}")
        return arguments
    if arguments:
        names = ", ".join(f"--{name}" for name in sorted(arguments))
        raise UserError(f"--dataset={dataset} takes no {names}: only {SYNTHETIC} does")
    return {"source": source, "image_dir": image_dir, **reading}


def _stamp(dataset: str, kwargs: dict) -> str:
    """A digest of the source or the arguments, by which a prepared data set is recognized."""
    if dataset == SYNTHETIC:
        drawn = {"version": str(_builder_class(dataset).VERSION), **kwargs}
        return hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()
    return _builder_class(dataset).fingerprint(**kwargs)


def _builder_class(dataset: str):
    import tensorflow_datasets as tfds

    import promptmad_jax.data.builders  # noqa: F401  (registers them)

    return tfds.builder_cls(dataset)


def _existing(dataset: str, data_dir: str) -> Prepared | None:
    if not (pathlib.Path(data_dir) / dataset).is_dir():
        return None
    try:
        return find_prepared(dataset, data_dir)
    except UserError:  # A folder without a complete data set in it.
        return None


def _refuse_other_source(old: Prepared, kwargs: dict, overwrite: bool) -> None:
    """Refuses to replace what was made of another source, unless that is asked for."""
    then = _report_of(old).get("source", "")
    if overwrite or not then or "source" not in kwargs:
        return
    if absolute(kwargs["source"]) != absolute(then):
        raise UserError(
            f"{printable(old.folder)} was made of {then}: give another --data_dir, or --overwrite "
            "to replace it"
        )


def _stamp_of(prepared: Prepared) -> str | None:
    return _report_of(prepared).get("source_fingerprint")


def _report_of(prepared: Prepared) -> dict:
    try:
        report = json.loads((prepared.folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def _build(dataset: str, data_dir: pathlib.Path, kwargs: dict, stamp: str) -> pathlib.Path:
    import tensorflow_datasets as tfds

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=STAGING, dir=data_dir) as staging:
            # Not `tfds.builder`, which puts a line of its own before every message.
            builder = _builder_class(dataset)(data_dir=staging, **kwargs)
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS names the staging folder.
                builder.download_and_prepare(file_format="array_record")
            written = pathlib.Path(builder.data_dir)
            report = _complete_report(written, builder, kwargs, stamp)
            folder = data_dir / written.relative_to(staging)
            folder.parent.mkdir(parents=True, exist_ok=True)
            if folder.exists():
                folder.rename(pathlib.Path(staging) / "replaced")
            written.rename(folder)
    except OSError as error:
        raise UserError(
            f"{dataset} cannot be written to {data_dir} ({error.strerror or error}):"
            " make room there or choose another --data_dir"
        ) from error
    caches = image_cache.folder_of(Prepared(dataset, folder.name, folder), data_dir)
    shutil.rmtree(caches, ignore_errors=True)
    _print_report(report, folder)
    return folder


def _complete_report(written: pathlib.Path, builder, kwargs: dict, stamp: str) -> dict:
    path = written / REPORT
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    report = {
        "dataset": builder.name,
        "version": str(builder.version),
        "arguments": kwargs,
        "source_fingerprint": stamp,
        "images": {name: split.num_examples for name, split in builder.info.splits.items()},
        "problems": [],
    }
    path.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return report


def _print_report(report: dict, folder: pathlib.Path) -> None:
    shown: Counter[str] = Counter()
    for problem in report["problems"]:
        shown[problem["kind"]] += 1
        if shown[problem["kind"]] <= _SHOWN or problem["kind"] in _WARNINGS:
            warning = "warning: " if problem["kind"] in _WARNINGS else ""
            text = f"{problem['file']}: {problem['reason']}: {problem['action']}"
            print(f"{warning}{text} [{problem['kind']}]")
    for kind, number in shown.items():
        if number > _SHOWN and kind not in _WARNINGS:
            print(f"{number - _SHOWN} more of [{kind}]: the report names them")
    if "counts" in report:
        for name, row in report["counts"].items():
            print(f"{name}: {row['train']} train, {sum(row['test'].values())} test images")
    if levels := Levels.from_json(report.get(PIXEL_RANGE)):
        print(f"images of more than 8 bits are read as {levels}, black to white")
        print("(--bit_depth=N sets another range)")
    images = ", ".join(f"{number} {split}" for split, number in report["images"].items())
    print(f"{report['dataset']}: {images} images, {len(report['problems'])} problems")
    print(f"written to {printable(folder)}; the report is {printable(folder / REPORT)}")
