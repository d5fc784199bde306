"""Checkpoints of the training state: saved in the background, verified, restored."""

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
_MAX_REASON = 300  # characters
_MAX_LISTED = 5
_OTHER_WRITERS_S = 0.5


class DamagedCheckpoint(UserError):
    """A checkpoint's files are not as they were written."""


class SaveFailure(NamedTuple):
    """A failed save and its reason."""

    step: int
    reason: str


class Checkpoints:
    """The numbered checkpoints in a directory, and the configuration of their run.

    A state is any pytree of `jax.Array`s, which may include typed PRNG keys. On disk it is a flat
    table from the slash-joined path of a leaf (`params/neck/kernel`) to the array, independent of
    the Python types that held it. A checkpoint appears whole or not at all; what a killed process
    left half-written is ignored. It carries checksums of its files, which are verified before it is
    read.

    With several processes, all make the same calls together, except `failures`.
    """

    def __init__(self, directory: epath.PathLike, keep: int, keep_every: int = 0):
        """Opens `directory`, creating it if necessary.

        Keeps the newest `keep` checkpoints, and those whose step is a multiple of `keep_every` (0:
        none).
        """
        if keep < 1:
            raise UserError(f"checkpoints to keep must be at least 1, not {keep}")
        if keep_every < 0:
            raise UserError(f"steps between kept checkpoints must be at least 0, not {keep_every}")
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
        """Starts to write `state`, whose arrays may be donated as soon as this returns.

        Waits for the save before. Does nothing for the newest step. A save that fails is reported
        by `failures` and leaves the older checkpoints in place.

        Raises:
          ValueError: a newer checkpoint exists.
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
        """Waits until the started save is on disk or has failed."""
        if self._writing is None:
            return
        try:
            self._store.finish()
        except STORAGE_ERRORS as error:
            self._give_up(error)
        self._writing = None

    def failures(self) -> list[SaveFailure]:
        """The saves that failed since the last call; does not wait."""
        if self._writing is not None and not self._store.busy():
            self.wait()
        failures, self._failures = self._failures, []
        return failures

    def close(self) -> None:
        """Waits, then frees the writer's threads."""
        self.wait()
        self._store.close(self._failed)

    def restore(self, step: int, abstract_state: Any) -> Any:
        """Reads the state of `step`, in the structure and on the shardings of `abstract_state`.

        Args:
          step: one of the saved steps.
          abstract_state: `jax.ShapeDtypeStruct`s with shardings, on any mesh.

        Raises:
          DamagedCheckpoint: the files are not as they were written.
          UserError: the checkpoint belongs to another model.
        """
        return self._restore(step, abstract_state, lambda name: True)

    def restore_part(self, step: int, abstract_part: Any) -> Any:
        """Reads some of the state's top-level entries and nothing else; see `restore`."""
        entries = {name.partition("/")[0] for name in state_table.flatten(abstract_part)}
        return self._restore(step, abstract_part, lambda name: name.partition("/")[0] in entries)

    def _restore(self, step: int, abstract: Any, belongs: Callable[[str], bool]) -> Any:
        if step not in self.steps():
            raise UserError(f"{self.directory} has no checkpoint of step {step}")
        damage = self._by_process_0(lambda: _find_damage(self._store.path(step)))
        if damage:
            raise self._damaged(step, damage)
        wanted = state_table.flatten(abstract)
        try:
            stored = self._store.arrays(step)
            self._check_fits(step, wanted, {name: stored[name] for name in filter(belongs, stored)})
            return state_table.unflatten(abstract, self._store.read(step, wanted))
        except STORAGE_ERRORS as error:
            raise self._damaged(step, str(error)) from error

    def restore_newest(self, abstract_state: Any) -> tuple[int, Any] | None:
        """Reads the newest undamaged checkpoint: its step and state, or None without checkpoints.

        Warns of each damaged one.

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
                f"no checkpoint in {self.directory} is undamaged: restore one from a backup, or "
                "delete that folder to start again"
            ) from damaged
        return None

    def resume(self, abstract_state: Any) -> tuple[int, Any] | None:
        """As `restore_newest`, for a run that goes on writing.

        Clears the way for what the run will write: damaged checkpoints are renamed to
        `STEP.damaged`, and what a killed process left half-written is deleted.
        """
        found = self.restore_newest(abstract_state)
        newer = [step for step in self.steps() if found is not None and step > found[0]]
        self._by_process_0(lambda: self._tidy(newer))
        if newer:
            self._store.reload()
        return found

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes `config` as JSON beside the steps, on process 0."""
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
                "configuration and version that the run began with (`config` and `code` in "
                "manifest.json), or another working directory"
            )

    def _by_process_0(self, decide: Callable[[], str]) -> str:
        """Calls `decide` on process 0 and returns its result on all."""
        leads = self._processes.index == 0
        decision = processes.jointly(self._processes, lambda: decide() if leads else "")
        return processes.gather_objects(self._processes, decision)[0]

    def _give_up(self, error: Exception) -> None:
        step, self._writing, self._failed = self._writing, None, True
        self._failures.append(SaveFailure(step, _short(str(error))))
        # The list lacks the checkpoint that this save would have replaced.
        self._store.reload()
        if self._processes.index == 0 and step not in self.steps():
            # Orbax stops at the first writer's error and does not wait for the others, which would
            # create the directory again.
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
        rest = f"the one before it is of step {older[-1]}" if older else "it is the oldest"
        return DamagedCheckpoint(f"{self._store.path(step)} is damaged: {_short(reason)}; {rest}")


def _write_checksums(directory: epath.Path) -> None:
    checksums.write_checksums(directory, unsummed=(METADATA_FILE, COMMIT_FILE))


def _find_damage(directory: epath.Path) -> str:
    """Describes the damage to a checkpoint, or returns ""."""
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
            warn(f"{directory} is no longer needed, but cannot be deleted: {error}")


def _short(reason: str) -> str:
    reason = reason.partition("[tensorstore_spec")[0].strip()
    # The system's own error message comes last, after paths of any length.
    return reason if len(reason) <= _MAX_REASON else f"{reason[:100]} ... {reason[-200:]}"
