"""PromptMAD's parts one by one: a row adds, leaves out or changes one of them.

    python launch/sweep.py --config=study/parts.py:row=diffusion,base=quickstart \\
        --workdir=runs/study/diffusion

`base` is the configuration that a row starts from, folder or quickstart; `row=default` is the base
itself. docs/results/README.md says which rows to compare.
"""

from collections.abc import Mapping
from typing import Any

from promptmad_jax.configs import common, promptmad_folder, quickstart
from promptmad_jax.runtime.errors import UserError

_BASES = {"folder": promptmad_folder, "quickstart": quickstart}

_WHOLE = {
    "eval.fusion": "weighted",
    "reconstructor.enabled": True,
    "reconstructor.standardize": False,
    "reconstructor.text_in_decoder": True,
    "reconstructor.text_in_prompt": True,
    "segmentor.attention_layers": 1,
    "segmentor.text": True,
    "diffusion.steps": 10,
    "text.control": "none",
}
_NO_MEMORY = {"memory.patches": 0, "eval.fusion": "standardized"}
_NO_DIFFUSION = {"diffusion.steps": 0}
_NO_TRANSFORMER = {"segmentor.attention_layers": 0}
_NO_TEXT = {
    "segmentor.text": False,
    "reconstructor.text_in_decoder": False,
    "reconstructor.text_in_prompt": False,
}
_NO_RECONSTRUCTION = {"reconstructor.enabled": False}

_TEXT = _WHOLE | _NO_RECONSTRUCTION
_TRANSFORMER = _TEXT | _NO_TEXT
_DIFFUSION = _TRANSFORMER | _NO_TRANSFORMER
_SEGMENTOR = _DIFFUSION | _NO_DIFFUSION

_PLAIN = {
    "pseudo_anomaly.contrast": (1.0, 1.0),
    "pseudo_anomaly.shrink": 0.0,
    "pseudo_anomaly.foreground": 0.0,
}

# Settings that differ from the base.
ROWS: dict[str, dict[str, Any]] = {
    "default": {},
    # Each adds a part to the one above.
    "memory": _SEGMENTOR | {"train.steps": 0},
    "segmentor": _SEGMENTOR,
    "diffusion": _DIFFUSION,
    "transformer": _TRANSFORMER,
    "text": _TEXT,
    "reconstruction": _WHOLE,
    # The whole without a part. The other parts need the segmentor.
    "whole": _WHOLE,
    "no_memory": _WHOLE | _NO_MEMORY,
    "no_diffusion": _WHOLE | _NO_DIFFUSION,
    "no_transformer": _WHOLE | _NO_TRANSFORMER,
    "no_text": _WHOLE | _NO_TEXT,
    "no_reconstruction": _TEXT,
    # `text` with the words of other classes; the whole with another scale of what is reconstructed.
    "shuffled_text": _TEXT | {"text.control": "shuffled"},
    "standardized": _WHOLE | {"reconstructor.standardize": True},
    "standardized_no_memory": _WHOLE | _NO_MEMORY | {"reconstructor.standardize": True},
    # The default configuration with another loss (Dice remains), memory, size or pseudo-anomaly.
    "no_focal": {"loss.focal": 0.0, "loss.refined_focal": 0.0},
    "patches_1024": {"memory.patches": 1024},
    "patches_2048": {"memory.patches": 2048},
    "patches_4096": {"memory.patches": 4096},
    "pool_40000": {"memory.pool": 40_000},
    "px_224": {"data.image_size": 224},
    "px_320": {"data.image_size": 320},
    "plain": _PLAIN,
    "faint": _PLAIN | {"pseudo_anomaly.contrast": (0.3, 1.0)},
    "small": _PLAIN | {"pseudo_anomaly.shrink": 0.5},
    "foreground": _PLAIN | {"pseudo_anomaly.foreground": 0.7},
}


def get_config(arg=None):
    arg = common.parse_arg(arg, row="default", base="folder")
    row, base = _choose("row", arg.row, ROWS), _choose("base", arg.base, _BASES)
    config = base.get_config()
    config.name = f"{config.name}_{arg.row}"
    config.update_from_flattened_dict(row)
    config.train.seed = config.memory.seed = arg.seed
    if arg.smoke:
        common.shrink(config)
    return config


def _choose(name: str, value: str, known: Mapping[str, Any]) -> Any:
    if value not in known:
        raise UserError(
            f"config argument {name}={value!r} is unknown; known are {', '.join(known)}"
        )
    return known[value]


def get_hyper():
    """Settings for launch/sweep.py: three seeds."""
    return [{"train.seed": seed, "memory.seed": seed} for seed in range(3)]
