"""Joins the processes of a multi-process run.

The place of a process among them comes from the flags, from `JAX_COORDINATOR_ADDRESS`,
`JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, or from the launcher: Slurm, Open MPI, an indexed
Kubernetes job or JobSet, or Cloud TPU. jax.distributed does the rest, including heartbeats.
"""

import glob
import importlib.util
import os
import socket
import time
from collections.abc import Mapping
from logging import LogRecord
from typing import NamedTuple

from absl import flags, logging

from promptmad_jax.runtime import process_exit as leaving
from promptmad_jax.runtime.errors import UserError

_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", None, "join other processes (by default, if the environment says so)"
)
_ADDRESS = flags.DEFINE_string("coordinator_address", None, "HOST:PORT on the machine of process 0")
_COUNT = flags.DEFINE_integer("num_processes", None, "number of processes", lower_bound=1)
_INDEX = flags.DEFINE_integer("process_id", None, "index of this process, from 0", lower_bound=0)
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_timeout",
    60,
    "seconds of silence of one process after which the others end",
    lower_bound=1,
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


class Place(NamedTuple):
    """The place of this process among all; JAX finds out what is None.

    Attributes:
        address: HOST:PORT of the coordinator, which runs in process 0.
        count, index: the number of processes, and the index of this one.
        source: where this is known from, for messages.
    """

    address: str | None
    count: int | None
    index: int | None
    source: str


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


def find_place(given: Place, environment: Mapping[str, str]) -> Place | None:
    """Returns the place of this process, or None if it is the only one.

    Args:
        given: the values of the flags, None where not given.

    Raises:
        UserError: address, count and index are incomplete or contradictory.
    """
    explicit = _explicit(given, environment)
    if any(value is not None for value in explicit[:3]):
        return _complete(explicit, environment)
    scheduled = _scheduler(environment)
    if scheduled is not None and scheduled.source == "Open MPI" and not _orte(environment):
        raise UserError(
            "Open MPI 5 does not say where process 0 runs: give all processes the same "
            "--coordinator_address=HOST:PORT"
        )
    if scheduled is not None and scheduled.source in ("Slurm", "Open MPI"):
        return scheduled if scheduled.count > 1 else None
    if _several_tpu_hosts(environment):
        return Place(None, None, None, "Cloud TPU")
    return None


def _explicit(given: Place, environment: Mapping[str, str]) -> Place:
    """The flags, completed by JAX's environment variables."""
    address, count, index = given[:3]
    if address is None:
        address = environment.get("JAX_COORDINATOR_ADDRESS") or None
    if count is None:
        count = _integer(environment, "JAX_NUM_PROCESSES")
    if index is None:
        index = _integer(environment, "JAX_PROCESS_ID")
    return Place(address, count, index, given.source)


def _complete(place: Place, environment: Mapping[str, str]) -> Place:
    """Fills in count and index from the launcher, and checks all three."""
    scheduled = _scheduler(environment)
    address, count, index = place[:3]
    if scheduled is not None:
        count = scheduled.count if count is None else count
        index = scheduled.index if index is None else index
    names = ("coordinator_address", "num_processes", "process_id")
    known = dict(zip(names, (address, count, index), strict=True))
    missing = [f"--{name}" for name, value in known.items() if value is None]
    if missing:
        there = ", ".join(f"--{name}={v}" for name, v in known.items() if v is not None)
        raise UserError(
            f"{there} without {' and '.join(missing)}: give all three, as flags or as "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        )
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 2**16):
        raise UserError(f"--coordinator_address={address}: it must be HOST:PORT")
    if not 0 <= index < count:
        raise UserError(f"--process_id={index}: with {count} processes it is 0 to {count - 1}")
    return Place(address, count, index, place.source)


def _scheduler(environment: Mapping[str, str]) -> Place | None:
    """Count and index as Slurm, Open MPI or Kubernetes number them."""
    # Outside a job step one process runs, however many tasks were requested.
    if "SLURM_STEP_NODELIST" in environment and "SLURM_PROCID" in environment:
        count, index = _integer(environment, "SLURM_NTASKS"), _integer(environment, "SLURM_PROCID")
        return Place(None, 1 if count is None else count, index, "Slurm")
    if "OMPI_COMM_WORLD_SIZE" in environment:
        count = _integer(environment, "OMPI_COMM_WORLD_SIZE")
        index = _integer(environment, "OMPI_COMM_WORLD_RANK")
        return Place(None, count, index, "Open MPI") if count > 1 else None
    if "JOB_COMPLETION_INDEX" in environment:
        index = _integer(environment, "JOB_COMPLETION_INDEX")
        return Place(None, None, index, "Kubernetes")
    return None


def _orte(environment: Mapping[str, str]) -> bool:
    """Returns True for Open MPI up to version 4, which names the machine of process 0."""
    return "OMPI_MCA_orte_hnp_uri" in environment


def _several_tpu_hosts(environment: Mapping[str, str]) -> bool:
    """Returns True on a host with TPU chips that may be one of several; JAX asks the cloud."""
    if (environment.get("JAX_PLATFORMS") or "tpu") not in ("tpu", "tpu,cpu"):
        return False
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    if hosts is not None:
        slices = _integer(environment, "MEGASCALE_NUM_SLICES")
        return "," in hosts or (slices is not None and slices > 1)
    chips = glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
    on_cloud = "TPU_SKIP_MDS_QUERY" not in environment
    return on_cloud and bool(chips) and importlib.util.find_spec("libtpu") is not None


def _integer(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name)
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"{name}={text}: it must be a whole number") from error


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
