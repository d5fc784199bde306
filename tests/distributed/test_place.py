"""Where a process stands, by the flags and by what started it."""

import socket

import pytest

from promptmad_jax.runtime import distributed, process_place
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.process_place import Place, find_place

NOTHING = Place(None, None, None, "the flags")
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[001-002]",
    "SLURM_NTASKS": "16",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}
FIRST_POD = "promptmad-workers-0-0.promptmad:8476"
JOBSET = {"JAX_COORDINATOR_ADDRESS": FIRST_POD, "JAX_NUM_PROCESSES": "4"}


@pytest.fixture(autouse=True)
def no_chips(monkeypatch):
    monkeypatch.setattr(process_place.glob, "glob", lambda pattern: [])


def flags(address=None, count=None, index=None):
    return Place(address, count, index, "the flags")


def test_nothing_says_that_there_are_others():
    assert find_place(NOTHING, {}) is None


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (SLURM, Place(None, 16, 9, "Slurm")),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        # The batch script itself, outside of any step.
        ({k: v for k, v in SLURM.items() if k != "SLURM_STEP_NODELIST"}, None),
        (OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://h:1"}, Place(None, 4, 3, "Open MPI")),
        (OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "t0,t1", "TPU_WORKER_ID": "1"}, Place(*NOTHING[:3], "Cloud TPU")),
        ({"TPU_WORKER_HOSTNAMES": "t0", "TPU_WORKER_ID": "0"}, None),
        (
            {"TPU_WORKER_HOSTNAMES": "t0", "MEGASCALE_NUM_SLICES": "2"},
            Place(*NOTHING[:3], "Cloud TPU"),
        ),
        ({"TPU_WORKER_HOSTNAMES": "t0,t1", "JAX_PLATFORMS": "cpu"}, None),
        ({"JOB_COMPLETION_INDEX": "2"}, None),
    ],
)
def test_schedulers_that_jax_asks_itself(environment, expected):
    assert find_place(NOTHING, environment) == expected


def test_cloud_tpu_is_known_by_its_chips(monkeypatch):
    monkeypatch.setattr(process_place.glob, "glob", lambda pattern: ["/dev/accel0"])
    monkeypatch.setattr(process_place.importlib.util, "find_spec", lambda name: name == "libtpu")
    assert find_place(NOTHING, {}) == Place(None, None, None, "Cloud TPU")
    assert find_place(NOTHING, {"TPU_SKIP_MDS_QUERY": "1"}) is None


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        (flags("h:1", 2, 1), {}, ("h:1", 2, 1)),
        (flags("[::1]:1", 2, 0), {}, ("[::1]:1", 2, 0)),
        # A JobSet numbers its pods; Slurm and Open MPI say everything but the address.
        (
            NOTHING,
            JOBSET | {"JOB_COMPLETION_INDEX": "3"},
            (FIRST_POD, 4, 3),
        ),
        (NOTHING, JOBSET | {"JAX_PROCESS_ID": "2"}, (FIRST_POD, 4, 2)),
        (flags("h:1"), SLURM, ("h:1", 16, 9)),
        (flags("h:1"), OPEN_MPI, ("h:1", 4, 3)),
        # Flags stand above all.
        (flags("h:1", 8, 7), JOBSET | SLURM, ("h:1", 8, 7)),
    ],
)
def test_what_is_given_is_completed(given, environment, expected):
    assert find_place(given, environment)[:3] == expected


@pytest.mark.parametrize(
    ("given", "environment", "message"),
    [
        (flags(count=2, index=0), {}, "without --coordinator_address: give all three"),
        (flags("h:1"), {}, "without --num_processes and --process_id"),
        (NOTHING, JOBSET, "without --process_id"),
        (flags("h", 2, 0), {}, "it must be HOST:PORT"),
        (flags("h:70000", 2, 0), {}, "it must be HOST:PORT"),
        (flags("h:1", 2, 2), {}, "with 2 processes it is 0 to 1"),
        (NOTHING, JOBSET | {"JAX_PROCESS_ID": "one"}, "JAX_PROCESS_ID=one: it must be a whole"),
        (NOTHING, OPEN_MPI, "Open MPI 5 does not say where process 0 runs"),
    ],
)
def test_half_given_is_refused(given, environment, message):
    with pytest.raises(UserError, match=message):
        find_place(given, environment)


def test_a_port_in_use_is_named(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} cannot be opened"):
            distributed._meet(Place(f"127.0.0.1:{port}", 2, 0, "the flags"))
