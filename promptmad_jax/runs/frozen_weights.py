"""Checks that the frozen weights, which checkpoints leave out, match the run's."""

from typing import Any

from promptmad_jax.clip.files import content_hash, find_files
from promptmad_jax.config import ZERO_SHOT, Config
from promptmad_jax.models.backbone.backbone import weights_digest
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.errors import UserError

ENTRY = "frozen"
_BACKBONE, _CLIP = "backbone.weights", "clip.weights"


def frozen_facts(config: Config) -> dict[str, Any]:
    """The manifest's entry: the setting that names the frozen weights, and a digest of their files.

    The digest is None for random weights, which follow from their seed.

    Raises:
        UserError: files are missing, or a hub cannot be reached.
    """
    return {ENTRY: {_setting(config): _digest(config)}}


def noted(files: Workdir) -> tuple[str, ...]:
    """The weight settings whose files the run has recorded, and which may have moved."""
    manifest = files.read_manifest()
    if manifest is None or ENTRY not in manifest:
        return ()
    return tuple(name for name, digest in manifest[ENTRY].items() if digest is not None)


def check_frozen(config: Config, files: Workdir) -> None:
    """Compares the files of the frozen weights with those that the run in `files` recorded.

    Compares nothing if the manifest is missing or of a version that did not record them.

    Raises:
        UserError: the weights differ or are missing.
    """
    manifest, setting = files.read_manifest(), _setting(config)
    if manifest is None or ENTRY not in manifest:
        return
    then = manifest[ENTRY][setting]
    if then is not None and _digest(config) != then:
        name = config.clip.weights if setting == _CLIP else config.backbone.weights
        raise UserError(
            f"{files.path} was made with other weights than {setting}={name} now names. Restore "
            f"them, or give {setting} their new path, or their hub id with its @REVISION; or start "
            "a new run in another --workdir"
        )


def _setting(config: Config) -> str:
    return _CLIP if config.model == ZERO_SHOT else _BACKBONE


def _digest(config: Config) -> str | None:
    if config.model != ZERO_SHOT:
        return weights_digest(config.backbone)
    if config.clip.weights == "random":
        return None
    return content_hash(find_files(config.clip.weights, _CLIP))
