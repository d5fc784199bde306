"""Joins the processes of a run before any of them touches a device.

Where this process stands comes from the flags, from `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES`
and `JAX_PROCESS_ID`, or from what started it: Slurm, Open MPI, an indexed Kubernetes job or JobSet,
or Cloud TPU. jax.distributed does the rest, its heartbeats included.
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
    "distributed", None, "one of several processes; by default, where the environment says so"
)
_ADDRESS = flags.DEFINE_string("coordinator_address", None, "HOST:PORT on process 0's machine")
_COUNT = flags.DEFINE_integer("num_processes", None, "number of processes", lower_bound=1)
_INDEX = flags.DEFINE_integer("process_id", None, "of this process, from 0", lower_bound=0)
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_timeout", 60, "seconds after which a silent process ends the others", lower_bound=1
)
_CONNECT = flags.DEFINE_integer(
    "connect_timeout", 300, "seconds to wait for the other processes at the start", lower_bound=1
)

_RETRY_SECONDS = 0.2
_SHUTDOWN_SECONDS = 1800


class _NamedLines(logging.PythonFormatter):
    """Lines of the log that say which process they are of."""

    def format(self, record: LogRecord) -> str:
        return f"[{leaving.process_name()}] {super().format(record)}"


class Place(NamedTuple):
    """Where this process stands; what is None is found by jax itself.

    Attributes:
        address: HOST:PORT of the coordinator, which runs in process 0.
        count, index: number of processes, and which this is.
        source: what says so, in words.
    """

    address: str | None
    count: int | None
    index: int | None
    source: str


def initialize() -> None:
    """Joins the other processes by the flags and the environment; does nothing where there are
    none.

    Raises:
        UserError: the place is half given, or the others do not come.
    """
    if _DISTRIBUTED.value is False:
        return
    given = Place(_ADDRESS.value, _COUNT.value, _INDEX.value, "the flags")
    place = find_place(given, os.environ)
    if place is None and _DISTRIBUTED.value:
        raise UserError(
            "--distributed: neither flags nor environment say where this process stands; give "
            "--coordinator_address=HOST:PORT --num_processes=N --process_id=I, or start it with "
            "launch/local_multiprocess.sh, srun, mpirun or a JobSet"
        )
    if place is not None:
        _join(place)


def find_place(given: Place, environment: Mapping[str, str]) -> Place | None:
    """The place of this process, or None where it is the only one.

    Args:
        given: what the flags say, None where they do not.

    Raises:
        UserError: address, count and index are half known, or do not fit together.
    """
    explicit = _explicit(given, environment)
    if any(value is not None for value in explicit[:3]):
        return _complete(explicit, environment)
    scheduled = _scheduler(environment)
    if scheduled is not None and scheduled.source == "Open MPI" and not _orte(environment):
        raise UserError(
            "Open MPI 5 does not say where process 0 runs: give --coordinator_address=HOST:PORT, "
            "the same to all processes"
        )
    if scheduled is not None and scheduled.source in ("Slurm", "Open MPI"):
        return scheduled if scheduled.count > 1 else None
    if _several_tpu_hosts(environment):
        return Place(None, None, None, "Cloud TPU")
    return None


def _explicit(given: Place, environment: Mapping[str, str]) -> Place:
    """The flags, and where they say nothing the variables."""
    address, count, index = given[:3]
    if address is None:
        address = environment.get("JAX_COORDINATOR_ADDRESS") or None
    if count is None:
        count = _integer(environment, "JAX_NUM_PROCESSES")
    if index is None:
        index = _integer(environment, "JAX_PROCESS_ID")
    return Place(address, count, index, given.source)


def _complete(place: Place, environment: Mapping[str, str]) -> Place:
    """Fills in count and index from the scheduler, and checks all three."""
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
    # Without a step there is one process, whatever the number of tasks that were asked for.
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
    """Whether Open MPI, up to version 4, names the machine that started the processes."""
    return "OMPI_MCA_orte_hnp_uri" in environment


def _several_tpu_hosts(environment: Mapping[str, str]) -> bool:
    """Whether this is a machine with TPU chips, which may be one of several; jax asks the cloud."""
    if environment.get("JAX_PLATFORMS", "tpu") not in ("", "tpu", "tpu,cpu"):
        return False
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    if hosts is not None:
        slices = _integer(environment, "MEGASCALE_NUM_SLICES")
        return "," in hosts or (slices is not None and slices > 1)
    chips = glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*")
    on_cloud = "TPU_SKIP_MDS_QUERY" not in environment
    return on_cloud and bool(chips) and importlib.util.find_spec("libtpu") is not None


def _integer(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
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
            # What was given is not looked for; and no device is left out.
            cluster_detection_method="deactivate" if explicit else None,
            initialization_timeout=_CONNECT.value,
            heartbeat_timeout_seconds=_HEARTBEAT.value,
            # At the end the others wait for process 0, which writes the report.
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"the processes of the run did not meet (by {place.source}: {reason}); give "
            "--nodistributed for one process alone"
        ) from error
    leaving.joined(jax.process_index(), jax.process_count())
    logging.get_absl_handler().setFormatter(_NamedLines())
    # The first gather opens connections, for which gloo gives all of them 30 s: now they are near.
    gather_objects(this_run(), place.index)


def _meet(place: Place) -> None:
    """Says what is wrong where jax would abort without a word of it."""
    host, _, port = place.address.rpartition(":")
    if place.index == 0:
        _check_free(place.address, int(port))
        print(
            f"process 0 of {place.count}: waiting for the others at {place.address}, "
            f"{_CONNECT.value} s at most",
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
                    f"process {place.index} of {place.count}: nobody answered at {place.address} "
                    f"within {_CONNECT.value} s ({error}); start process 0 there too, or give "
                    "--connect_timeout more seconds"
                ) from error
            time.sleep(_RETRY_SECONDS)


def _check_free(address: str, port: int) -> None:
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    with socket.socket(family) as probe:
        # As the coordinator does: a port that a run before this one has just left is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise UserError(
                f"--coordinator_address={address}: port {port} cannot be opened ({error}); give "
                "another one to all processes"
            ) from error
