"""Whether what is frozen is what a run was trained with: checkpoints hold what is trained alone."""

import json
from typing import Any

from promptmad_jax.clip.files import content_hash, find_files
from promptmad_jax.config import ZERO_SHOT, Config
from promptmad_jax.models.backbone import weights_digest
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.workdir import Workdir

_ENTRY = "frozen_digest"
_CLIP = "clip.weights"


def frozen_facts(config: Config) -> dict[str, Any]:
    """For the manifest: the digest of the files that the backbone, or a zero-shot detector's CLIP,
    is read from; None for random weights, which follow from their seed."""
    return {_ENTRY: _digest(config)}


def check_frozen(config: Config, files: Workdir) -> None:
    """Compares those files with the ones that the run in `files` was trained with.

    Nothing is compared where the manifest is missing or of a version that did not note them.

    Raises:
        UserError: they are others under the same name.
    """
    if not files.manifest.exists():
        return
    then = json.loads(files.manifest.read_text()).get(_ENTRY)
    if then is not None and _digest(config) != then:
        zero_shot = config.model == ZERO_SHOT
        setting = _CLIP if zero_shot else "backbone.weights"
        name = config.clip.weights if zero_shot else config.backbone.weights
        raise UserError(
            f"{files.path} holds a model that was trained on other frozen weights than those that "
            f"{setting}={name} now names. Bring back the files of that time (digest in "
            f"{files.manifest}), or train anew in another --workdir"
        )


def _digest(config: Config) -> str | None:
    if config.model != ZERO_SHOT:
        return weights_digest(config.backbone)
    if config.clip.weights == "random":
        return None
    return content_hash(find_files(config.clip.weights, _CLIP))
