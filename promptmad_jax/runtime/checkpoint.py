"""Checkpoints of the whole training state: saved, verified, restored."""

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from etils import epath

from promptmad_jax.runtime import checksums, files, processes, state_table
from promptmad_jax.runtime.console import warn
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.orbax_store import (
    COMMIT_FILE,
    METADATA_FILE,
    STORAGE_ERRORS,
    UNFINISHED_SUFFIX,
    OrbaxStore,
)

CONFIG_FILE = "config.json"
DAMAGED_SUFFIX = ".damaged"

_SUMMED = {"checksums": True}
_LONGEST = 300
_OTHER_WRITERS_S = 0.5
_MAX_LISTED = 5


class DamagedCheckpoint(UserError):
    """A checkpoint's files are not as they were written."""


class SaveFailure(NamedTuple):
    """A save that came to nothing, and why."""

    step: int
    reason: str


class Checkpoints:
    """The numbered checkpoints below one directory, and the configuration that made them.

    A state is any pytree of `jax.Array`s, typed PRNG keys among them. On disk it is a flat table
    from the slash-joined path of a leaf (`params/neck/kernel`) to the array, so that a checkpoint
    does not depend on the Python types that held it. A checkpoint appears whole or not at all; what
    a killed process left half-written is passed over. It carries the checksums of its files, which
    are compared before it is read.

    With several processes, all of them make the same calls together, but for `failures`.
    """

    def __init__(self, directory: epath.PathLike, keep: int, keep_every: int = 0):
        """Opens `directory`, made if need be.

        Of its checkpoints the newest `keep` are kept, and those whose step is a multiple of
        `keep_every` (0: none).
        """
        if keep < 1:
            raise UserError(f"checkpoints to keep must be at least 1, not {keep}")
        if keep_every < 0:
            raise UserError(f"steps between checkpoints that are kept: {keep_every} is below 0")
        self.directory = files.absolute(directory)
        self._processes = processes.this_run()
        self._writing: int | None = None
        self._failed = False
        self._failures: list[SaveFailure] = []
        self._store = OrbaxStore(self.directory, keep, keep_every, _write_checksums)

    def steps(self) -> list[int]:
        """The steps that are complete or being written, oldest first."""
        return self._store.steps()

    def latest_step(self) -> int | None:
        """The newest of `steps()`, or None."""
        return max(self.steps(), default=None)

    def save(self, step: int, state: Any) -> None:
        """Starts to write `state`; its arrays may be donated or changed as soon as this returns.

        The save before is waited for. Saving the newest step once more does nothing. A save that
        fails is told by `failures`; the older checkpoints stay.

        Raises:
          ValueError: there is a newer checkpoint.
        """
        self.wait()
        self._writing = step
        try:
            if any(processes.gather_objects(self._processes, self._failed)):
                self._store.reopen()
                self._failed = False
            newest = self.latest_step()
            if newest is None or newest < step:
                self._store.start(step, state_table.flatten(state), _SUMMED)
                return
        except STORAGE_ERRORS as error:
            self._give_up(error)
            return
        self._writing = None
        if newest > step:
            raise ValueError(f"step {step} is older than checkpoint {newest}")

    def wait(self) -> None:
        """Returns once the started save is on disk, or has failed."""
        if self._writing is None:
            return
        try:
            self._store.finish()
        except STORAGE_ERRORS as error:
            self._give_up(error)
        self._writing = None

    def failures(self) -> list[SaveFailure]:
        """The saves that failed since this was last asked; does not wait."""
        if self._writing is not None and not self._store.busy():
            self.wait()
        failures, self._failures = self._failures, []
        return failures

    def close(self) -> None:
        """Waits, then frees the writer's threads."""
        self.wait()
        self._store.close(self._failed)

    def restore(self, step: int, abstract_state: Any) -> Any:
        """The state of `step`, in the structure of `abstract_state` and on its shardings.

        Args:
          step: one of the saved steps.
          abstract_state: `jax.ShapeDtypeStruct`s with shardings. The mesh may differ from the one
            that the checkpoint was saved on.

        Raises:
          DamagedCheckpoint: the files are not those that were written.
          UserError: the checkpoint belongs to another model.
        """
        self._verify(step)
        wanted = state_table.flatten(abstract_state)
        self._check_fits(step, wanted, self._stored_arrays(step))
        return state_table.unflatten(abstract_state, self._read(step, wanted, self._store.read))

    def restore_part(self, step: int, abstract_part: Any) -> Any:
        """As `restore`, for some of the state's top-level entries; nothing else is read."""
        self._verify(step)
        wanted = state_table.flatten(abstract_part)
        entries = {name.partition("/")[0] for name in wanted}
        stored = self._stored_arrays(step).items()
        stored = {name: array for name, array in stored if name.partition("/")[0] in entries}
        self._check_fits(step, wanted, stored)
        return state_table.unflatten(abstract_part, self._read(step, wanted, self._store.read_part))

    def _verify(self, step: int) -> None:
        if step not in self.steps():
            raise UserError(f"{self.directory} has no checkpoint of step {step}")
        damage = self._by_process_0(lambda: _find_damage(self._store.path(step)))
        if damage:
            raise self._damaged(step, damage)

    def _read(
        self,
        step: int,
        wanted: state_table.Table,
        read: Callable[[int, state_table.Table], state_table.Table],
    ) -> state_table.Table:
        try:
            return read(step, wanted)
        except STORAGE_ERRORS as error:
            raise self._damaged(step, str(error)) from error

    def restore_newest(self, abstract_state: Any) -> tuple[int, Any] | None:
        """The step of the newest checkpoint that is whole, and its state; None where there are no
        checkpoints at all.

        Damaged ones are passed over, each with a warning.

        Raises:
          DamagedCheckpoint: all are damaged.
          UserError: the checkpoint belongs to another model.
        """
        damaged = None
        for step in reversed(self.steps()):
            try:
                state = self.restore(step, abstract_state)
            except DamagedCheckpoint as error:
                damaged = error
                warn(str(error))
                continue
            if damaged:
                warn(f"took the checkpoint of step {step} instead")
            return step, state
        if damaged:
            raise DamagedCheckpoint(
                f"no checkpoint in {self.directory} is whole: bring one back from a copy, or "
                "delete that folder to start again"
            ) from damaged
        return None

    def resume(self, abstract_state: Any) -> tuple[int, Any] | None:
        """As `restore_newest`, for a run that will write on.

        What the run will write anew is put out of its way: damaged checkpoints keep their files
        under the name `STEP.damaged`, and what a killed process left half-written is deleted.
        """
        found = self.restore_newest(abstract_state)
        newer = [step for step in self.steps() if found is not None and step > found[0]]
        self._by_process_0(lambda: self._tidy(newer))
        if newer:
            self._store.look_again()
        return found

    def write_config(self, config: dict[str, Any]) -> None:
        """Stores `config` beside the steps as JSON (by process 0 alone)."""
        if self._processes.index == 0:
            text = json.dumps(config, indent=2, sort_keys=True) + "\n"
            files.write_text_atomic(self.directory / CONFIG_FILE, text)

    def _check_fits(self, step: int, wanted: state_table.Table, stored: state_table.Table) -> None:
        faults = state_table.differences(stored, wanted)
        if faults:
            more = len(faults) - _MAX_LISTED
            listed = "; ".join(faults[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
            raise UserError(
                f"{self._store.path(step)} belongs to another model: {listed}. Use the "
                "configuration and the version that the run began with (manifest.json: `config`, "
                "`code`), or another working directory"
            )

    def _stored_arrays(self, step: int) -> dict[str, Any]:
        try:
            arrays = self._store.arrays(step)
        except STORAGE_ERRORS as error:
            raise self._damaged(step, str(error)) from error
        if not isinstance(arrays, dict):
            raise self._damaged(step, "its table of arrays is missing")
        return arrays

    def _by_process_0(self, decide: Callable[[], str]) -> str:
        """What `decide` returns there, on every process; the others do not call it."""
        leads = self._processes.index == 0
        decision = processes.jointly(self._processes, lambda: decide() if leads else "")
        return processes.gather_objects(self._processes, decision)[0]

    def _give_up(self, error: Exception) -> None:
        step, self._writing, self._failed = self._writing, None, True
        self._failures.append(SaveFailure(step, _short(str(error))))
        # What this save would have replaced is struck off the list, though it is there.
        self._store.look_again()
        if self._processes.index == 0 and step not in self.steps():
            # Orbax ends at the first writer's error; the others, which nobody waits for, would make
            # the directory anew.
            time.sleep(_OTHER_WRITERS_S)
            _remove(self._store.path(step))
            _remove(self._store.unfinished_path(step))

    def _tidy(self, damaged: list[int]) -> str:
        for step in damaged:
            aside = self.directory / f"{step}{DAMAGED_SUFFIX}"
            _remove(aside)
            self._store.path(step).rename(aside)
        for rest in self.directory.glob(f"*{UNFINISHED_SUFFIX}"):
            _remove(rest)
        return ""

    def _damaged(self, step: int, reason: str) -> DamagedCheckpoint:
        older = [other for other in self.steps() if other < step]
        rest = f"the one before it is of step {older[-1]}" if older else "there is none before it"
        return DamagedCheckpoint(f"{self._store.path(step)} is damaged: {_short(reason)}; {rest}")


def _write_checksums(directory: epath.Path) -> None:
    checksums.write_checksums(directory, unsummed=(METADATA_FILE, COMMIT_FILE))


def _find_damage(directory: epath.Path) -> str:
    """What is wrong with a checkpoint, or ""."""
    try:
        metadata = json.loads((directory / METADATA_FILE).read_bytes())
        summed = metadata.get("custom_metadata") == _SUMMED
    except FileNotFoundError:
        return f"{METADATA_FILE} is missing"
    except (ValueError, AttributeError):
        return f"{METADATA_FILE} was changed"
    # Checkpoints of the first version have no checksums.
    if not summed and not (directory / checksums.CHECKSUM_FILE).exists():
        return ""
    return checksums.find_damage(directory) or ""


def _remove(directory: epath.Path) -> None:
    if directory.exists():
        try:
            directory.rmtree()
        except OSError as error:
            warn(f"{directory} is of no use, but cannot be deleted: {error}")


def _short(reason: str) -> str:
    reason = reason.partition("[tensorstore_spec")[0].strip()
    # The system's own word is the last, behind paths of any length.
    return reason if len(reason) <= _LONGEST else f"{reason[:100]} ... {reason[-200:]}"
