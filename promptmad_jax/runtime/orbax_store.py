"""Numbered tables of arrays in a directory. The only module that uses Orbax."""

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
_ITEM = "default"  # the folder of the only item
SAVE_SECONDS = 300  # A process that fails to write keeps the others waiting no longer than this.

# TensorStore reports errors of the system as ValueError.
STORAGE_ERRORS = (OSError, ValueError, KeyError, jax.errors.JaxRuntimeError)


class _Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """Leaves preemption to the training loop. Orbax also asks from the thread that finishes a
        save, with a step that has passed by then: all processes would agree on a wrong step."""
        return False


class OrbaxStore:
    """A directory of tables, each below the number of its step, written in the background.

    With several processes, all make the same calls together, except `steps`, `busy` and `reload`.
    """

    def __init__(
        self,
        directory: epath.Path,
        keep: int,
        keep_every: int,
        before_commit: Callable[[epath.Path], None],
    ):
        """Opens `directory`, creating it if necessary.

        Args:
          keep, keep_every: keeps the newest `keep` and the multiples of `keep_every` (0: none).
          before_commit: called on process 0, in another thread, with the directory of a table whose
            files are complete, before it becomes one of the steps.
        """
        self.directory = directory
        policies = [LatestN(keep)] + ([EveryNSteps(keep_every)] if keep_every else [])
        self._policy = AnyPreservationPolicy(policies)
        self._before_commit = before_commit
        self._step = 0
        self._manager = self._open()

    def steps(self) -> list[int]:
        """The steps that are complete or being written, oldest first."""
        return sorted(self._manager.all_steps())

    def path(self, step: int) -> epath.Path:
        """The directory of a step, which need not exist."""
        return self.directory / str(step)

    def unfinished_path(self, step: int) -> epath.Path:
        """The directory that a step is written to; in an object store it is `path`."""
        return self.directory / f"{step}{UNFINISHED_SUFFIX}"

    def start(self, step: int, table: Table, metadata: dict[str, Any]) -> None:
        """Starts a save, after the one before has ended; raises one of `STORAGE_ERRORS`."""
        self._step = step
        self._manager.save(step, args=ocp.args.StandardSave(table), custom_metadata=metadata)

    def busy(self) -> bool:
        """Returns True while a save is being written."""
        return self._manager.is_saving_in_progress()

    def finish(self) -> None:
        """Waits for the save; raises one of `STORAGE_ERRORS` if it failed."""
        self._manager.wait_until_finished()

    def reload(self) -> None:
        """Reads the list of steps from the disk."""
        self._manager.reload()

    def arrays(self, step: int) -> dict[str, Any]:
        """Type and shape of each array of a step; raises one of `STORAGE_ERRORS`."""
        metadata = self._manager.item_metadata(step)
        if metadata is None or not isinstance(metadata.tree, dict):
            raise ValueError("its table of arrays is missing")
        return metadata.tree

    def read(self, step: int, wanted: Table) -> Table:
        """The arrays of a step that are in `wanted`, on its shardings; no others are read.

        Raises one of `STORAGE_ERRORS`.
        """
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
        """Replaces the manager after a failed save, with which its next save would fail too."""
        self.close(failed=True)
        self._manager = self._open()
        # Frees the coroutines that the save has not awaited, before Python warns of them.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            gc.collect()

    def _open(self) -> _Manager:
        asynchronous = ocp.AsyncOptions(
            timeout_secs=SAVE_SECONDS, post_finalization_callback=self._complete
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._policy,
            enable_async_checkpointing=True,
            async_options=asynchronous,
            create=True,
        )
        handlers = ocp.StandardCheckpointHandler()
        return _Manager(self.directory, options=options, item_handlers=handlers)

    def _complete(self) -> None:
        unfinished = self.unfinished_path(self._step)
        self._before_commit(unfinished if unfinished.exists() else self.path(self._step))
