"""Checkpoints of the whole training state. The only module that knows Orbax."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from promptmad_jax.runtime import files
from promptmad_jax.runtime.errors import UserError

CONFIG_FILE = "config.json"
_MAX_LISTED = 5


class Checkpoints:
    """The numbered checkpoints below one directory, and the configuration that made them.

    A state is any pytree of `jax.Array`s, typed PRNG keys among them. On disk it is a flat table
    from the slash-joined path of a leaf (`params/neck/kernel`) to the array, so that a checkpoint
    does not depend on the Python types that held it. A checkpoint appears whole or not at all; what
    a killed process left half-written is passed over.

    With several processes, all of them call `save`, `restore`, `wait` and `close` together.
    """

    def __init__(self, directory: epath.PathLike, keep: int):
        """Opens `directory`, made if need be, of which the newest `keep` checkpoints are kept."""
        if keep < 1:
            raise UserError(f"checkpoints to keep must be at least 1, not {keep}")
        self.directory = epath.Path(directory).resolve()
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, enable_async_checkpointing=True, create=True
            ),
            item_handlers=ocp.StandardCheckpointHandler(),
        )

    def latest_step(self) -> int | None:
        """The newest step that is complete, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Starts to write `state`; its arrays may be donated or changed as soon as this returns.

        A failure of the write itself is raised by the next `save`, `wait` or `close`. Saving the
        newest step once more does nothing.

        Raises:
          ValueError: there is a newer checkpoint.
        """
        if step == self.latest_step():
            return
        if not self._manager.save(step, args=ocp.args.StandardSave(_flatten(state))):
            raise ValueError(f"step {step} is older than checkpoint {self.latest_step()}")

    def restore(self, step: int, abstract_state: Any) -> Any:
        """The state of `step`, in the structure of `abstract_state` and on its shardings.

        Args:
          step: one of the saved steps.
          abstract_state: `jax.ShapeDtypeStruct`s with shardings. The mesh may differ from the one
            that the checkpoint was saved on.

        Raises:
          UserError: the checkpoint is damaged, or belongs to another model.
        """
        wanted = _flatten(abstract_state)
        self._check_fits(step, wanted)
        try:
            restored = self._manager.restore(step, args=ocp.args.StandardRestore(wanted))
        except (ValueError, OSError, KeyError) as error:
            raise self._damaged(step, str(error)) from error
        return _unflatten(abstract_state, restored)

    def wait(self) -> None:
        """Returns once every started save is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then frees the writer's threads."""
        self.wait()
        self._manager.close()

    def write_config(self, config: dict[str, Any]) -> None:
        """Stores `config` beside the steps as JSON (by process 0 alone)."""
        if jax.process_index() == 0:
            text = json.dumps(config, indent=2, sort_keys=True) + "\n"
            files.write_text_atomic(self.directory / CONFIG_FILE, text)

    def _check_fits(self, step: int, wanted: dict[str, Any]) -> None:
        if step not in self._manager.all_steps():
            raise UserError(f"{self.directory} has no checkpoint of step {step}")
        stored = self._stored_arrays(step)
        faults = [f"{name} is not in the checkpoint" for name in sorted(wanted.keys() - stored)]
        faults += [f"{name} is not in the model" for name in sorted(stored.keys() - wanted)]
        for name in sorted(wanted.keys() & stored):
            there, here = _description(stored[name]), _description(wanted[name])
            if there != here:
                faults.append(f"{name} is {there} in the checkpoint and {here} in the model")
        if faults:
            listed = "; ".join(faults[:_MAX_LISTED])
            more = f" and {len(faults) - _MAX_LISTED} more" if len(faults) > _MAX_LISTED else ""
            raise UserError(
                f"{self._step_directory(step)} belongs to another model: {listed}{more}. Use the "
                "configuration that the run began with, or another working directory"
            )

    def _stored_arrays(self, step: int) -> dict[str, Any]:
        try:
            metadata = self._manager.item_metadata(step)
        except (ValueError, OSError, KeyError) as error:
            raise self._damaged(step, str(error)) from error
        if metadata is None or not isinstance(metadata.tree, dict):
            raise self._damaged(step, "its table of arrays is missing")
        return metadata.tree

    def _step_directory(self, step: int) -> epath.Path:
        return self.directory / str(step)

    def _damaged(self, step: int, reason: str) -> UserError:
        earlier = [other for other in self._manager.all_steps() if other < step]
        way = f"go on from step {max(earlier)}" if earlier else "start again"
        reason = reason.partition("[tensorstore_spec")[0].strip()[:300]
        directory = self._step_directory(step)
        return UserError(f"{directory} is damaged ({reason}); delete it to {way}")


def _flatten(tree: Any) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _unflatten(like: Any, table: dict[str, Any]) -> Any:
    return jax.tree_util.tree_unflatten(
        jax.tree_util.tree_structure(like), [table[name] for name in _flatten(like)]
    )


def _description(array: Any) -> str:
    """Type and shape as stored: a typed PRNG key is a row of unsigned integers."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(array.shape, array.dtype))
    return f"{jnp.dtype(array.dtype).name}{list(array.shape)}"
