"""Numbered tables of arrays in a directory. The only module that knows Orbax."""

import gc
import warnings
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, EveryNSteps, LatestN

from promptmad_jax.runtime.state_table import Table

METADATA_FILE = "_CHECKPOINT_METADATA"
COMMIT_FILE = "commit_success.txt"
UNFINISHED_SUFFIX = ".orbax-checkpoint-tmp"
_ITEM = "default"  # where a manager of one item puts it
SAVE_SECONDS = 300  # A process that fails to write keeps the others waiting no longer than this.

# TensorStore reports what the system refused as ValueError.
STORAGE_ERRORS = (OSError, ValueError, KeyError, jax.errors.JaxRuntimeError)


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """Leaves the question to the training loop. Orbax asks it from the thread that finishes a
        save too, with a step that is past by then: all processes would agree on a wrong step."""
        return False


class OrbaxStore:
    """One directory of tables, each below the number of its step, written in the background.

    With several processes, all of them make the same calls together, but for `steps`, `busy` and
    `look_again`.
    """

    def __init__(
        self,
        directory: epath.Path,
        keep: int,
        keep_every: int,
        before_commit: Callable[[epath.Path], None],
    ):
        """Opens `directory`, made if need be.

        Args:
          keep, keep_every: the newest `keep` are kept, and the multiples of `keep_every` (0: none).
          before_commit: called on process 0, by another thread, with the directory of a table whose
            files are complete, before it counts as one of the steps.
        """
        self.directory = directory
        self._policy = AnyPreservationPolicy(
            [LatestN(keep)] + ([EveryNSteps(keep_every)] if keep_every else [])
        )
        self._before_commit = before_commit
        self._step = 0
        self._manager = self._open()

    def steps(self) -> list[int]:
        """The steps that are complete or being written, oldest first."""
        return sorted(self._manager.all_steps())

    def path(self, step: int) -> epath.Path:
        """Where a step is, or will be."""
        return self.directory / str(step)

    def unfinished_path(self, step: int) -> epath.Path:
        """Where a step is written to; an object store has it at `path` from the start."""
        return self.directory / f"{step}{UNFINISHED_SUFFIX}"

    def start(self, step: int, table: Table, metadata: dict[str, Any]) -> None:
        """Begins to write; raises one of `STORAGE_ERRORS`. The save before must have ended."""
        self._step = step
        self._manager.save(step, args=ocp.args.StandardSave(table), custom_metadata=metadata)

    def busy(self) -> bool:
        """Whether a save is still being written."""
        return self._manager.is_saving_in_progress()

    def finish(self) -> None:
        """Waits for the save; raises one of `STORAGE_ERRORS` where it failed."""
        self._manager.wait_until_finished()

    def look_again(self) -> None:
        """Reads the list of steps from the disk."""
        self._manager.reload()

    def arrays(self, step: int) -> Any:
        """Type and shape of each array; something other than a dict if that cannot be told."""
        metadata = self._manager.item_metadata(step)
        return None if metadata is None else metadata.tree

    def read(self, step: int, wanted: Table) -> Table:
        """The arrays of a step on the shardings of `wanted`; raises one of `STORAGE_ERRORS`."""
        return self._manager.restore(step, args=ocp.args.StandardRestore(wanted))

    def read_part(self, step: int, wanted: Table) -> Table:
        """As `read`, for some of the arrays of a step."""
        restore_args = ocp.checkpoint_utils.construct_restore_args(wanted)
        handler = ocp.PyTreeCheckpointHandler()
        try:
            return handler.restore(
                self.path(step) / _ITEM,
                args=ocp.args.PyTreeRestore(wanted, restore_args, partial_restore=True),
            )
        finally:
            handler.close()

    def close(self, failed: bool) -> None:
        """Frees the threads; drops the storage errors of a save that has `failed` already."""
        try:
            self._manager.close()
        except STORAGE_ERRORS:
            if not failed:
                raise

    def reopen(self) -> None:
        """Begins anew after a failed save, which the next save would otherwise fail with too."""
        self.close(failed=True)
        self._manager = self._open()
        _forget_unawaited()

    def _open(self) -> _Manager:
        return _Manager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._policy,
                enable_async_checkpointing=True,
                async_options=ocp.AsyncOptions(
                    timeout_secs=SAVE_SECONDS, post_finalization_callback=self._complete
                ),
                create=True,
            ),
            item_handlers=ocp.StandardCheckpointHandler(),
        )

    def _complete(self) -> None:
        unfinished = self.unfinished_path(self._step)
        self._before_commit(unfinished if unfinished.exists() else self.path(self._step))


def _forget_unawaited() -> None:
    """Frees the coroutines that a save has not come to, of which Python would warn at any time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        gc.collect()
