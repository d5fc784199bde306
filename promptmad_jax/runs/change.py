"""Several files of a run replaced together: an interruption leaves the old ones or the new ones.

The new files are first written to a hidden folder, and a list of them last. Only then does each
replace its predecessor. Where that was interrupted, the next command on the run goes on with it.
"""

import json
from collections.abc import Mapping

from etils import epath

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import write_bytes_atomic, write_text_atomic
from promptmad_jax.runtime.lock import locked

STAGE = ".promptmad-change"
_LIST = "files.json"


def replace_files(folder: epath.Path, contents: Mapping[str, bytes | None]) -> None:
    """Replaces files below a folder that the caller holds; None removes one.

    Raises:
        UserError: the disk is full or refuses; all files stay as they were.
    """
    stage = folder / STAGE
    _clear(stage)
    try:
        for number, content in enumerate(contents.values()):
            if content is not None:
                write_bytes_atomic(stage / str(number), content)
        removed = [name for name, content in contents.items() if content is None]
        names = {"names": list(contents), "removed": removed}
        write_text_atomic(stage / _LIST, json.dumps(names))
    except OSError as error:
        _clear(stage)
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}): make room there; the run is "
            "as it was"
        ) from error
    _move(folder)


def finish_change(folder: epath.Path) -> None:
    """Goes on with a replacement that was interrupted after all new files were written."""
    if (folder / STAGE / _LIST).exists():
        with locked(folder):
            _move(folder)


def _move(folder: epath.Path) -> None:
    stage = folder / STAGE
    listed = json.loads((stage / _LIST).read_text())
    for name in listed["removed"]:
        (folder / name).unlink(missing_ok=True)
    for number, name in enumerate(listed["names"]):
        if (stage / str(number)).exists():  # Else it was moved before the interruption.
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (stage / str(number)).replace(folder / name)
    (stage / _LIST).unlink()
    _clear(stage)


def _clear(stage: epath.Path) -> None:
    if stage.exists():
        stage.rmtree()
