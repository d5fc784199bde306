"""Checks that the frozen weights, which checkpoints leave out, match the run's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.errors import UserError

ENTRY = "frozen"


@dataclass(frozen=True)
class FrozenWeights:
    """The files that a configuration's frozen weights come from.

    Attributes:
        setting: the setting that names them. name: its value.
        digest: returns a digest of the files' content; None for random weights, which follow from
            their seed. Raises UserError where files are missing or a hub cannot be reached.
    """

    setting: str
    name: str
    digest: Callable[[], str | None]

    def facts(self) -> dict[str, Any]:
        """The manifest's entry."""
        return {ENTRY: {self.setting: self.digest()}}


def noted(files: Workdir) -> tuple[str, ...]:
    """The settings whose files the run's manifest identifies: their location may change."""
    manifest = files.read_manifest()
    if manifest is None or ENTRY not in manifest:
        return ()
    return tuple(name for name, digest in manifest[ENTRY].items() if digest is not None)


def check_frozen(weights: FrozenWeights, files: Workdir) -> None:
    """Compares the files of the frozen weights with those that the run was made with.

    Nothing is compared where the manifest is missing or does not identify them.

    Raises:
        UserError: they differ, or are missing.
    """
    manifest = files.read_manifest()
    if manifest is None or ENTRY not in manifest:
        return
    then = manifest[ENTRY][weights.setting]
    if then is not None and weights.digest() != then:
        raise UserError(
            f"{files.path} was made with other weights than {weights.setting}={weights.name} now "
            f"names. Restore them, or give {weights.setting} their new path, or their hub id with "
            "its @REVISION; or start a new run in another --workdir"
        )
