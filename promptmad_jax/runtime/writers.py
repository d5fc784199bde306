"""Destinations of a run's metrics: its log, and the writers of `train.writers`."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
from etils import epath

from promptmad_jax.runtime.console import warn
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.metrics_log import Kind, MetricsWriter


class Writer(Protocol):
    """A destination of a run's metrics, on process 0."""

    def write(self, step: int, metrics: Mapping[str, float], kind: Kind) -> None:
        """Takes the metrics of `step`; some may be NaN."""
        ...

    def flush(self) -> None:
        """Delivers what was written."""
        ...

    def close(self) -> None:
        """Delivers what was written, and ends."""
        ...


# Workdir, the whole configuration, the step to resume from -> writer.
Factory = Callable[[str, Mapping[str, Any], int], Writer]


class Writers:
    """The log of a run, and its other writers.

    A writer that raises is dropped with a warning, so that training goes on without its service.
    """

    def __init__(self, log: MetricsWriter, others: Mapping[str, Writer]):
        self._log, self._others = log, dict(others)

    def write(self, step: int, metrics: Mapping[str, float], kind: Kind = "train") -> None:
        """Writes the metrics of a step to all."""
        self._log.write(step, metrics, kind)
        self._each(lambda writer: writer.write(step, metrics, kind))

    def flush(self) -> None:
        """Flushes all."""
        self._log.flush()
        self._each(lambda writer: writer.flush())

    def close(self) -> None:
        """Closes all."""
        self._log.flush()
        self._each(lambda writer: writer.close())

    def _each(self, call: Callable[[Writer], None]) -> None:
        for name, writer in list(self._others.items()):
            try:
                call(writer)
            except Exception as error:
                del self._others[name]
                warn(f"the writer {name} failed and is dropped: {error!r}")


def open_writers(
    names: Sequence[str], workdir: epath.PathLike, config: Mapping[str, Any], resume_step: int
) -> Writers:
    """Opens the log of a run and the writers of `train.writers`.

    Args:
      names: "wandb", or MODULE:FACTORY for a `Factory` to import.

    Raises:
      UserError: a writer cannot be imported or opened.
    """
    factories = {name: _factory(name) for name in names}
    log = MetricsWriter(workdir, resume_step)
    if jax.process_index() != 0:
        return Writers(log, {})
    return Writers(
        log,
        {name: _open(name, f, str(workdir), config, resume_step) for name, f in factories.items()},
    )


def _factory(name: str) -> Factory:
    if name == "wandb":
        return _wandb()
    module, colon, attribute = name.partition(":")
    try:
        if not colon:
            raise ImportError("it is neither wandb nor MODULE:FACTORY")
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"train.writers: {name!r} cannot be imported: {error}") from error


def _wandb() -> Factory:
    try:
        importlib.import_module("wandb")
    except ImportError as error:
        raise UserError(
            "train.writers: wandb is not installed; `pip install wandb`, or leave it out"
        ) from error
    return Wandb


def _open(name: str, factory: Factory, *arguments: Any) -> Writer:
    try:
        return factory(*arguments)
    except Exception as error:
        raise UserError(
            f"train.writers: {name} could not be opened ({error!r}); correct it, or leave it out"
        ) from error


class Wandb:
    """Writes to Weights & Biases, configured by its environment variables `WANDB_*`.

    A resumed run continues under its id, which a file in the workdir holds.
    """

    def __init__(self, workdir: str, config: Mapping[str, Any], resume_step: int):
        import wandb

        marker = epath.Path(workdir) / "wandb_run_id.txt"
        known = marker.read_text().strip() if marker.exists() and resume_step else None
        self._run = wandb.init(
            config=dict(config), name=config["name"], id=known, resume="allow" if known else None
        )
        marker.write_text(f"{self._run.id}\n")

    def write(self, step: int, metrics: Mapping[str, float], kind: Kind) -> None:
        """Logs the metrics as `kind/name`."""
        self._run.log({f"{kind}/{name}": value for name, value in metrics.items()}, step=step)

    def flush(self) -> None:
        """Does nothing: wandb uploads by itself."""

    def close(self) -> None:
        """Waits for the upload."""
        self._run.finish()
