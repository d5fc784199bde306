"""Profiles of training steps, for TensorBoard and Perfetto."""

import re
from typing import Any

import jax
from etils import epath

from promptmad_jax.runtime import files
from promptmad_jax.runtime.console import say
from promptmad_jax.runtime.errors import UserError


def parse_steps(text: str) -> tuple[int, int] | None:
    """Parses `FIRST:LAST`; returns None for an empty text.

    Raises:
      UserError: it is something else.
    """
    if not text:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", text)
    steps = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= steps[0] <= steps[1]:
        raise UserError(f"--profile={text}: it must be FIRST:LAST, two steps from 1 on")
    return steps


class StepTrace:
    """Records the first to the last of `steps` on process 0; a context manager.

    Leave out the first step of a run, because compiling it makes thousands of events.
    """

    def __init__(self, directory: epath.PathLike, steps: tuple[int, int] | None):
        """Records nothing if `steps` is None.

        Raises:
          UserError: the directory is in an object store, where the profiler cannot write.
        """
        self._directory, self._steps = epath.Path(directory), steps
        self._running = False
        if steps is not None and not files.is_local(directory):
            raise UserError(f"--profile writes to a local folder, not to {directory}")

    def __enter__(self) -> "StepTrace":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._running:
            self._stop()

    def before(self, step: int) -> None:
        """Starts recording before the step; a resumed run may begin within the range."""
        if self._steps is None or jax.process_index() != 0 or self._running:
            return
        if self._steps[0] <= step <= self._steps[1]:
            jax.profiler.start_trace(str(self._directory))
            self._running = True

    def after(self, step: int, results: Any) -> None:
        """Stops recording after the step that computes `results`."""
        if self._running and step >= self._steps[1]:
            jax.block_until_ready(results)
            self._stop()
            say(f"profile of steps {self._steps[0]} to {step}: {self._directory}")

    def _stop(self) -> None:
        self._running = False
        jax.profiler.stop_trace()


NO_TRACE = StepTrace("profile", None)
