"""Joins the processes of a multi-process run.

The place of a process among them comes from the flags, from `JAX_COORDINATOR_ADDRESS`,
`JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, or from the launcher: Slurm, Open MPI, an indexed
Kubernetes job or JobSet, or Cloud TPU. jax.distributed does the rest, including heartbeats.
"""

import os
import socket
import time
from logging import LogRecord

from absl import flags, logging

from promptmad_jax.runtime import process_exit as leaving
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.process_place import Place, find_place

_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", None, "join other processes (by default, if the environment says so)"
)
_ADDRESS = flags.DEFINE_string("coordinator_address", None, "HOST:PORT on the machine of process 0")
_COUNT = flags.DEFINE_integer("num_processes", None, "number of processes", lower_bound=1)
_INDEX = flags.DEFINE_integer("process_id", None, "index of this process, from 0", lower_bound=0)
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_timeout", 60, "seconds after which a silent process ends the others", lower_bound=1
)
_CONNECT = flags.DEFINE_integer(
    "connect_timeout", 300, "seconds to wait for the others at the start", lower_bound=1
)

_RETRY_SECONDS = 0.2
_SHUTDOWN_SECONDS = 1800


class _NamedLines(logging.PythonFormatter):
    """Log lines that name their process."""

    def format(self, record: LogRecord) -> str:
        return f"[{leaving.process_name()}] {super().format(record)}"


def initialize() -> None:
    """Joins the other processes, if flags or environment name any; call before using a device.

    Raises:
        UserError: the place is incomplete, or the others do not connect.
    """
    if _DISTRIBUTED.value is False:
        return
    given = Place(_ADDRESS.value, _COUNT.value, _INDEX.value, "the flags")
    place = find_place(given, os.environ)
    if place is None and _DISTRIBUTED.value:
        raise UserError(
            "--distributed: neither flags nor environment give the place of this process; give "
            "--coordinator_address=HOST:PORT --num_processes=N --process_id=I, or start it with "
            "launch/local_multiprocess.sh, srun, mpirun or a JobSet"
        )
    if place is not None:
        _join(place)


def _join(place: Place) -> None:
    import jax

    from promptmad_jax.runtime.processes import gather_objects, this_run

    explicit = place.address is not None
    if explicit:
        _meet(place)
    try:
        jax.distributed.initialize(
            place.address,
            place.count if explicit else None,
            place.index if explicit else None,
            # With a given place JAX searches for none, and leaves out no device.
            cluster_detection_method="deactivate" if explicit else None,
            initialization_timeout=_CONNECT.value,
            heartbeat_timeout_seconds=_HEARTBEAT.value,
            # At the end the others wait while process 0 writes the report.
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"the processes did not connect ({place.source}: {reason}); give --nodistributed "
            "to run one process alone"
        ) from error
    leaving.joined(jax.process_index(), jax.process_count())
    logging.get_absl_handler().setFormatter(_NamedLines())
    # The first gather opens connections within 30 s, gloo's limit: now all processes are ready.
    gather_objects(this_run(), place.index)


def _meet(place: Place) -> None:
    """Waits for the coordinator; reports errors that make JAX abort without a message."""
    host, _, port = place.address.rpartition(":")
    if place.index == 0:
        _check_free(place.address, int(port))
        print(
            f"process 0 of {place.count}: waiting for the others at {place.address} for up to "
            f"{_CONNECT.value} s",
            flush=True,
        )
        return
    deadline = time.monotonic() + _CONNECT.value
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"process {place.index} of {place.count}: no answer from {place.address} "
                    f"within {_CONNECT.value} s ({error}); start process 0 there, or raise "
                    "--connect_timeout"
                ) from error
            time.sleep(_RETRY_SECONDS)


def _check_free(address: str, port: int) -> None:
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    with socket.socket(family) as probe:
        # As the coordinator does: a port that an earlier run has just left counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise UserError(
                f"--coordinator_address={address}: port {port} cannot be opened ({error}); give "
                "all processes another one"
            ) from error
