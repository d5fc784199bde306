"""Whether what is frozen is what a run was made with: checkpoints hold what is trained alone."""

from typing import Any

from promptmad_jax.clip.files import content_hash, find_files
from promptmad_jax.config import ZERO_SHOT, Config
from promptmad_jax.models.backbone.backbone import weights_digest
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.errors import UserError

ENTRY = "frozen"
_BACKBONE, _CLIP = "backbone.weights", "clip.weights"


def frozen_facts(config: Config) -> dict[str, Any]:
    """For the manifest: the setting that names the frozen weights, and a digest of their files;
    None for random weights, which follow from their seed.

    Raises:
        UserError: files are missing, or a hub cannot be reached.
    """
    return {ENTRY: {_setting(config): _digest(config)}}


def noted(files: Workdir) -> tuple[str, ...]:
    """The settings whose files the run in `files` has noted: they may be found elsewhere now."""
    manifest = files.read_manifest()
    if manifest is None or ENTRY not in manifest:
        return ()
    return tuple(name for name, digest in manifest[ENTRY].items() if digest is not None)


def check_frozen(config: Config, files: Workdir) -> None:
    """Compares the files of the frozen weights with those that the run in `files` was made with.

    Nothing is compared where the manifest is missing or of a version that did not note them.

    Raises:
        UserError: they are others, or missing.
    """
    manifest, setting = files.read_manifest(), _setting(config)
    if manifest is None or ENTRY not in manifest:
        return
    then = manifest[ENTRY][setting]
    if then is not None and _digest(config) != then:
        name = config.clip.weights if setting == _CLIP else config.backbone.weights
        raise UserError(
            f"{files.path} was made with other files than those that {setting}={name} now names. "
            "Bring them back, or give train the name under which they are now, a path or a hub id "
            "with its @REVISION; or begin anew in another --workdir"
        )


def _setting(config: Config) -> str:
    return _CLIP if config.model == ZERO_SHOT else _BACKBONE


def _digest(config: Config) -> str | None:
    if config.model != ZERO_SHOT:
        return weights_digest(config.backbone)
    if config.clip.weights == "random":
        return None
    return content_hash(find_files(config.clip.weights, _CLIP))
