"""Starts the HTTP service and ends it in order."""

import contextlib
import dataclasses
import importlib.util
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from promptmad_jax.data.image_files import Reading
from promptmad_jax.runtime import interrupts
from promptmad_jax.runtime.console import say, warn
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving.prediction import Predictor

if TYPE_CHECKING:
    from fastapi import FastAPI

TOKEN_VARIABLE = "PROMPTMAD_TOKEN"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Settings:
    """See the flags of `promptmad serve`."""

    host: str
    port: int
    token_file: str
    batch_size: int
    wait_ms: float
    queue: int
    max_megabytes: float
    max_megapixels: int
    timeout: float


def serve(workdir: str, export: str, settings: Settings, weights: str = "") -> None:
    """Serves a run or an exported detector until a signal stops it.

    Args:
        weights: of the run's backbone, if they have moved.

    Raises:
        UserError: packages are missing, the detector cannot be loaded, or the port is taken.
    """
    for package in ("fastapi", "uvicorn", "prometheus_client", "multipart"):
        if importlib.util.find_spec(package) is None:
            raise UserError('serving needs more packages: pip install "promptmad_jax[serve]"')
    token = _token(settings.token_file)
    if settings.host not in _LOOPBACK and not token:
        warn(f"--host={settings.host} lets everyone who reaches this machine use the service")
    predictor, calibration, levels, save = (
        _exported(export) if export else _trained(workdir, weights)
    )
    warming = ThreadPoolExecutor(1).submit(_warm_up, predictor, settings.batch_size)
    # Imported while the detector becomes warm.
    from promptmad_jax.serving.service.app import Service
    from promptmad_jax.serving.service.device_queue import DeviceQueue
    from promptmad_jax.serving.service.uploads import Limits

    device = DeviceQueue(predictor, settings.batch_size, settings.wait_ms / 1000, settings.queue)
    service = Service(
        predictor,
        device,
        Reading(levels, settings.max_megapixels),
        Limits(int(settings.max_megabytes * 1e6), settings.timeout),
        calibration.thresholds,
        warming.done,
        token,
        save,
    )
    _listen(service.app(), settings, warming)


def _exported(path: str):
    from promptmad_jax.serving.artifact import Artifact

    artifact = Artifact(path)
    return artifact.predictor(), artifact.calibration(), artifact.levels(), None


def _trained(workdir: str, weights: str):
    from promptmad_jax.commands.calibrate import changed
    from promptmad_jax.commands.predictors import run_predictor
    from promptmad_jax.runs.workdir import Workdir
    from promptmad_jax.runtime.lock import locked

    files = Workdir(workdir)
    predictor = run_predictor(workdir, None, "", weights)()

    def save(name: str, threshold: float):
        with locked(files.path):
            stored = files.read_calibration()
            calibration = changed(stored, stored.rates, {name: threshold})
            files.write_calibration(calibration)
        predictor.calibration = dataclasses.replace(
            predictor.calibration, thresholds=calibration.thresholds
        )
        return calibration.thresholds[name]

    return predictor, files.read_calibration(), files.levels(), save


def _token(path: str) -> str:
    if not path:
        return os.environ.get(TOKEN_VARIABLE, "").strip()
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--token_file={path} cannot be read ({error})") from error
    if not lines or not lines[0].strip():
        raise UserError(f"--token_file={path}: its first line is empty; write the token there")
    return lines[0].strip()


def _warm_up(predictor: Predictor, batch_size: int) -> None:
    """Compiles the programs of one image and of a batch."""
    grey = np.full((64, 64, 3), 128, np.uint8)
    for count in sorted({1, batch_size}):
        predictor([grey] * count, f"class:{predictor.class_names[0]}")
    say("ready")


def _listen(app: "FastAPI", settings: Settings, warming: Future) -> None:
    """Answers requests until a signal, or until the detector turns out not to work."""
    import uvicorn

    class Server(uvicorn.Server):
        """Leaves signals to `interrupts`."""

        @contextlib.contextmanager
        def capture_signals(self):
            yield

        async def startup(self, sockets=None):
            await super().startup(sockets)
            for server in self.servers:
                host, port = server.sockets[0].getsockname()[:2]
                say(f"listening on http://{host}:{port}")

    config = uvicorn.Config(
        app, settings.host, settings.port, log_level="warning", timeout_graceful_shutdown=30
    )
    server = Server(config)

    def stop(number: int) -> None:
        server.should_exit = True

    def stop_if_failed(warming: Future) -> None:
        server.should_exit |= warming.exception() is not None

    warming.add_done_callback(stop_if_failed)
    with interrupts.stopping_by(stop):
        try:
            server.run()
        except SystemExit as error:  # uvicorn's way to say that it cannot start.
            raise UserError(
                f"cannot listen on {settings.host}:{settings.port}: is the port taken? choose "
                "another with --port"
            ) from error
    warming.result()
    say("stopped")
