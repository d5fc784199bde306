"""Builds a data set from a source, and reads it back."""

import pathlib

import tensorflow_datasets as tfds

import promptmad_jax.data.builders  # noqa: F401  (registers the builders)


def build(data_dir, source, name="anomaly_folder", **kwargs) -> pathlib.Path:
    builder = tfds.builder(name, data_dir=data_dir, source=str(source), **kwargs)
    builder.download_and_prepare()
    return pathlib.Path(builder.data_dir)


def records(folder: pathlib.Path, split: str) -> dict[str, dict]:
    source = tfds.builder_from_directory(folder).as_data_source(split)
    rows = {record["filename"].decode(): record for record in source}
    assert len(rows) == len(source)
    return rows
