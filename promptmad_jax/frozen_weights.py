"""Whether the frozen backbone is the one that a run was trained on: its checkpoints lack it."""

import json
from typing import Any

from promptmad_jax.config import Config
from promptmad_jax.models.backbone import weights_digest
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.workdir import Workdir

_ENTRY = "backbone_digest"


def frozen_facts(config: Config) -> dict[str, Any]:
    """For the manifest: the SHA-256 of the backbone's weight file, None for random weights."""
    return {_ENTRY: weights_digest(config.backbone)}


def check_frozen(config: Config, files: Workdir) -> None:
    """Compares the backbone's weight file with that of the run in `files`.

    Nothing is compared where the manifest is missing or of a version that did not note it.

    Raises:
        UserError: the file is another one under the same name.
    """
    if not files.manifest.exists():
        return
    then = json.loads(files.manifest.read_text()).get(_ENTRY)
    if then is None:
        return
    now = weights_digest(config.backbone)
    if now != then:
        raise UserError(
            f"{files.path} holds a model trained on another backbone: the weights of "
            f"backbone.weights={config.backbone.weights} have SHA-256 {str(now)[:12]}, and those "
            f"that it was trained on {then[:12]}. Bring back that file, or train anew in another "
            "--workdir"
        )
