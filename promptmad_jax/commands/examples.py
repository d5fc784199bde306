"""Writes test pictures of the synthetic data set as files, to try `predict` on."""

from pathlib import Path, PurePosixPath

import numpy as np

from promptmad_jax.commands.prepare import SYNTHETIC
from promptmad_jax.data.paths import printable
from promptmad_jax.data.prepared import find_prepared, read_contents, read_records
from promptmad_jax.runtime import outputs
from promptmad_jax.runtime.errors import UserError

COUNT = 20


def check_examples(dataset: str) -> None:
    """Raises UserError for a data set that was read from the user's own files."""
    if dataset != SYNTHETIC:
        raise UserError(
            f"--examples goes with --dataset={SYNTHETIC}; the pictures of {dataset} are files "
            "already: give predict any of them"
        )


def write_examples(data_dir: str, directory: str) -> None:
    """Writes `COUNT` pictures of the test split, evenly over classes and defect types, as
    CLASS/DEFECT_NUMBER.png.

    Raises:
      UserError: the folder holds something else, or cannot be written.
    """
    prepared = find_prepared(SYNTHETIC, data_dir)
    rows = read_contents(prepared, "test").rows
    places = np.unique(np.linspace(0, len(rows) - 1, COUNT).round().astype(int))
    chosen = [rows[place] for place in places]
    with outputs.claim(directory, outputs.EXAMPLES, "--examples") as folder:
        records = read_records(prepared, "test", tuple(row.index for row in chosen))
        for row, record in zip(chosen, records, strict=True):
            name = f"{row.defect_type}_{PurePosixPath(row.filename).name}"
            path = Path(folder) / row.class_name / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(record["image"])
    print(f"{len(chosen)} example images written to {printable(folder)}")
