"""The place of a process among those of its run, from flags, environment or launcher."""

import glob
import importlib.util
from collections.abc import Mapping
from typing import NamedTuple

from promptmad_jax.runtime.errors import UserError


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
    if scheduled is not None and scheduled.source in ("Slurm", "Open MPI"):
        # Open MPI up to version 4 names the machine of process 0.
        if scheduled.source == "Open MPI" and "OMPI_MCA_orte_hnp_uri" not in environment:
            raise UserError(
                "Open MPI 5 does not say where process 0 runs: give all processes the same "
                "--coordinator_address=HOST:PORT"
            )
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
