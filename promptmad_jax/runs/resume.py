"""Checks that a run may go on with this configuration, this data and this code."""

import dataclasses
import json
import shlex
from collections.abc import Mapping
from typing import Any, Protocol

from promptmad_jax.config import Config, absolute_paths
from promptmad_jax.runs.enrolled import enrolled_names
from promptmad_jax.runs.frozen_weights import ENTRY, FrozenWeights, check_frozen, noted
from promptmad_jax.runs.manifest import code_versions, same_files
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.checkpoint import CONFIG_FILE
from promptmad_jax.runtime.console import warn
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.training.config import total_steps

# Settings, or whole groups, that may change when a run resumes, because they do not change what is
# learned. `_check_data` checks that a changed `data_dir` holds the same images.
FREE = (
    "backbone.depthwise",
    "dapo.remat",
    "data.cache_dir",
    "data.data_dir",
    "diffusion.unroll",
    "eval",
    "mesh",
    "name",
    "pseudo_anomaly.batching",
    "segmentor.correction",
    "source.data_dir",
    "train.checkpoint_every",
    "train.epochs",
    "train.eval_at",
    "train.eval_every",
    "train.keep",
    "train.keep_every",
    "train.log_every",
    "train.resident",
    "train.steps",
    "train.writers",
)


class Begun(Protocol):
    """The data and frozen weights of a training about to start.

    Attributes:
        fingerprint, num_images: of the training data, 0 images where nothing is trained.
    """

    fingerprint: str
    num_images: int
    frozen_weights: FrozenWeights


def check_run(config: Config, files: Workdir, training: Begun) -> None:
    """Compares a training with the run that is in its directory, if one is there.

    Without a checkpoint anything may change. Other code, and a new length that changes the
    learning-rate schedule, are only warned about.

    Raises:
        UserError: the data or the frozen weights have changed, or the run is past the configured
            length already.
    """
    done, stored, manifest = newest_step(files), _stored_config(files), files.read_manifest()
    if done is None:
        return
    if stored is not None and manifest is not None:
        _check_data(config, manifest, files, training)
        _warn_of_code(manifest, files)
        _warn_of_length(config, stored, training.num_images)
    steps = total_steps(config.train, training.num_images)[0]
    if done > steps:
        raise UserError(
            f"the run in {files.path} is at step {done}, but this configuration ends at {steps}; "
            f"raise train.steps or train.epochs to reach {done}, or give another --workdir"
        )


def check_settings(config: Config, files: Workdir) -> None:
    """Compares a configuration with that of the run in its directory; reads no data.

    Raises:
        UserError: a setting that decides the result has changed, or the run has enrolled images,
            of which training knows nothing.
    """
    if enrolled := enrolled_names(files):
        raise UserError(
            f"images of {', '.join(enrolled)} were enrolled in {files.path}: train another run on "
            f"them with `promptmad retrain --workdir={files.path} --output=NEW`, or take them out "
            "with `promptmad enroll --remove`"
        )
    if newest_step(files) is None:
        return
    stored = _stored_config(files)
    if stored is None:
        warn(f"{files.path} lacks checkpoints/{CONFIG_FILE}: its settings cannot be compared")
        return
    old, new = _flat(absolute_paths(stored)), _flat(_plain(to_dict(config)))
    unknown = sorted(old.keys() - new.keys())
    if unknown:
        warn(f"the run in {files.path} has settings that this version lacks: {', '.join(unknown)}")
    may_move = {*noted(files), *same_files(files.read_manifest() or {}, to_dict(config))}
    # The default of a new setting is what the older version did.
    defaults = _flat(_plain(to_dict(Config())))
    changed = {
        key: (old.get(key, defaults[key]), value)
        for key, value in new.items()
        if value != old.get(key, defaults[key]) and not _is_free(key) and key not in may_move
    }
    if changed:
        listed = "; ".join(
            f"{key} was {was!r} and is {now!r}" for key, (was, now) in changed.items()
        )
        flags = " ".join(_as_flag(key, was) for key, (was, _) in changed.items())
        raise UserError(
            f"{files.path} holds a run with other settings: {listed}. To resume it, give the old "
            f"ones ({flags}); to start a new run, give another --workdir"
        )


def _check_data(config: Config, manifest: dict, files: Workdir, training: Begun) -> None:
    then, now = manifest["data_fingerprint"], training.fingerprint
    if then != now:
        raise UserError(
            f"{files.path} holds a run on other training images (fingerprint {then[:12]}, and "
            f"that of {config.data.data_dir} is {now[:12]}). Set data.data_dir to the old ones, or "
            "start in another --workdir"
        )
    check_frozen(training.frozen_weights, files)
    if ENTRY not in manifest:
        warn(
            f"the run in {files.path} did not record its frozen weights; the current ones are "
            "recorded from here on"
        )


def _warn_of_code(manifest: dict, files: Workdir) -> None:
    now, then = code_versions(), manifest.get("code", {})
    others = [f"{k} {then[k]}, now {now[k]}" for k in now if k in then and now[k] != then[k]]
    if others:
        warn(f"the run in {files.path} was started with {'; '.join(others)}: results may differ")


def _warn_of_length(config: Config, stored: dict[str, Any], num_images: int) -> None:
    length = {key: stored["train"][key] for key in ("epochs", "steps")}
    was = total_steps(dataclasses.replace(config.train, **length), num_images)[0]
    steps = total_steps(config.train, num_images)[0]
    if was != steps and config.optimizer.schedule == "cosine":
        warn(
            f"the run had {was} steps and now has {steps}: from here on its learning rate "
            "follows the new length, so the result differs from a run of that length from the start"
        )


def newest_step(files: Workdir) -> int | None:
    """The newest step that has a checkpoint; None where there is no run."""
    directory = files.path / "checkpoints"
    if not directory.exists():
        return None
    names = (path.name for path in directory.iterdir())
    return max((int(name) for name in names if name.isdigit()), default=None)


def _stored_config(files: Workdir) -> dict[str, Any] | None:
    """The configuration of the run that the checkpoints belong to; None where it is missing."""
    path = files.path / "checkpoints" / CONFIG_FILE
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_text())
        if not isinstance(stored, dict):
            raise ValueError("it is no object")
        return stored
    except ValueError as error:
        raise UserError(
            f"{path} is not valid JSON ({error}); restore it from a copy, or delete it to continue "
            "with the settings of this command"
        ) from error


def _plain(values: Any) -> Any:
    """Values as JSON returns them: lists for tuples."""
    return json.loads(json.dumps(values))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def _as_flag(key: str, value: Any) -> str:
    text = repr(tuple(value)) if isinstance(value, list) else str(value)
    return shlex.quote(f"--config.{key}={text}")
