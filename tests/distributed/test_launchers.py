"""The launchers, with stand-ins for srun, scontrol, sbatch, gcloud and the training."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from promptmad_jax.runtime.cli import USER_ERROR_STATUS
from promptmad_jax.runtime.preemption import REQUEUE_STATUS
from tests.distributed.processes import ROOT

LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
JOBSETS = sorted(LAUNCH.glob("gke_jobset_*.yaml"))
SHELLCHECK = shutil.which(
    "shellcheck", path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a program before all others on the PATH; each call adds its arguments to `calls`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))

    def make(name, body=""):
        program = folder / name
        program.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> "$CALLS"\n{body}\n')
        program.chmod(0o755)
        return program

    return make


def calls(tmp_path):
    path = tmp_path / "calls"
    return path.read_text().splitlines() if path.exists() else []


def launch(script, *arguments, cwd=None, **environment):
    return subprocess.run(
        ["bash", str(LAUNCH / script), *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_reads_it(script):
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    command = [SHELLCHECK, "--external-sources", f"--source-path={LAUNCH}", *map(str, SCRIPTS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_statuses_are_those_of_the_package():
    for name in ("slurm.sbatch", "tpu_pod.sh"):
        text = (LAUNCH / name).read_text()
        assert re.search(rf"\bUSER_ERROR={USER_ERROR_STATUS}\b", text)
        assert re.search(rf"\bREQUEUE={REQUEUE_STATUS}\b", text)
    local = (LAUNCH / "local_multiprocess.sh").read_text()
    assert f"USER_ERROR={USER_ERROR_STATUS}\n" in local
    assert (
        f"USER_ERROR, REQUEUE = {USER_ERROR_STATUS}, {REQUEUE_STATUS}"
        in (LAUNCH / "sweep.py").read_text()
    )


# A process: fails as `how` says for its index at the first attempt, and succeeds afterwards.
PROCESS = """
if [[ "$1" == -c ]]; then exec python3 "$@"; fi
for argument in "$@"; do
  case "$argument" in
    --process_id=*) index="${argument#*=}" ;;
    --num_processes=*) count="${argument#*=}" ;;
  esac
done
attempt="$(grep -c -- "--process_id=$index\\b" "$CALLS")"
echo "attempt $attempt of $index of $count with $JAX_NUM_CPU_DEVICES devices on $JAX_PLATFORMS"
[[ -z "${EVERY_TIME:-}" && "$attempt" -gt 1 ]] && exit 0
case "$index" in
  "${FAILS:-none}") exit "${STATUS:-1}" ;;
  "${HANGS:-none}") trap "echo told; exit 75" TERM; while true; do sleep 0.1; done ;;
esac
"""


def local(stand_in, *arguments, **environment):
    program = stand_in("training", PROCESS)
    environment |= {"PROMPTMAD_PYTHON": str(program), "JAX_PLATFORMS": "cpu"}
    return launch("local_multiprocess.sh", *arguments, **environment)


def test_local_processes_get_their_place_and_the_arguments(stand_in, tmp_path):
    done = local(stand_in, "3", "--devices_per_process=2", "--", "--config=a b.py", "--x")
    assert done.returncode == 0, done.stderr
    started = [call for call in calls(tmp_path) if "-m promptmad_jax.train" in call]
    assert len(started) == 3 and all("--config=a b.py --x" in call for call in started)
    (address,) = {re.search(r"--coordinator_address=(\S+)", call)[1] for call in started}
    assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
    assert {f"[{i}] attempt 1 of {i} of 3 with 2 devices on cpu" for i in range(3)} == set(
        done.stdout.splitlines()
    )


def test_local_all_start_again_when_one_fails(stand_in):
    done = local(stand_in, "2", "--grace=1", "--", FAILS="1", STATUS="134", HANGS="0")
    assert done.returncode == 0, done.stderr
    assert "process 1 ended with status 134" in done.stderr
    assert "stopping the others" in done.stderr and "process 0 ended with status 137" in done.stderr
    assert "restart 1 of 3" in done.stderr
    assert {f"attempt 2 of {i}" for i in range(2)} <= {
        line[4:].partition(" of 2")[0] for line in done.stdout.splitlines()
    }


def test_local_restarts_are_limited(stand_in, tmp_path):
    again = {"FAILS": "0", "STATUS": "7", "EVERY_TIME": "yes"}
    done = local(stand_in, "1", "--restarts=2", "--", **again)
    assert done.returncode == 7 and "given up after 2 restarts" in done.stderr
    assert sum("--process_id=0" in call for call in calls(tmp_path)) == 3


def test_local_a_mistake_starts_nothing_again(stand_in, tmp_path):
    done = local(stand_in, "2", "--grace=0", "--", FAILS="1", STATUS="2", HANGS="0")
    assert done.returncode == 2 and "restart" not in done.stderr
    assert sum("--process_id=1" in call for call in calls(tmp_path)) == 1


def test_local_passes_a_signal_on_and_stays_down(stand_in, tmp_path):
    program = stand_in("training", PROCESS)
    environment = {"PROMPTMAD_PYTHON": str(program), "JAX_PLATFORMS": "cpu", "HANGS": "0"}
    process = subprocess.Popen(
        ["bash", str(LAUNCH / "local_multiprocess.sh"), "1", "--"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout.readline().startswith("[0] attempt 1")
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == REQUEUE_STATUS, output
    assert "told" in output and "restart" not in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give the number of processes"),
        (("0",), "it must be a number"),
        (("2", "--config=x"), "what goes to the training stands after --"),
        (("2", "--restarts=x"), "it must be a number"),
    ],
)
def test_local_mistakes(arguments, message):
    done = launch("local_multiprocess.sh", *arguments)
    assert done.returncode == 2 and message in done.stderr


def slurm(stand_in, tmp_path, status, *arguments, **environment):
    stand_in("srun", f"exit {status}")
    stand_in("scontrol")
    environment |= {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "42"}
    done = launch("slurm.sbatch", *arguments, cwd=tmp_path, **environment)
    return done, calls(tmp_path)


TRAIN = "srun --label --kill-on-bad-exit=1 python -u -m promptmad_jax.train"


@pytest.mark.parametrize("status", [0, USER_ERROR_STATUS])
def test_slurm_ends_where_nothing_is_to_be_done_again(stand_in, tmp_path, status):
    done, made = slurm(stand_in, tmp_path, status, "--config=x.py", "--workdir=a")
    assert done.returncode == status
    assert made == [f"{TRAIN} --config=x.py --workdir=a"]


def test_slurm_goes_back_into_the_queue_when_told_to_stop(stand_in, tmp_path):
    for _ in range(5):
        done, made = slurm(stand_in, tmp_path, REQUEUE_STATUS)
        assert done.returncode == 0 and made[-1] == "scontrol requeue 42"


def test_slurm_failures_are_counted(stand_in, tmp_path):
    for _ in range(2):
        done, made = slurm(stand_in, tmp_path, 134, PROMPTMAD_RESTARTS="2")
        assert done.returncode == 0 and made[-1] == "scontrol requeue 42"
    done, made = slurm(stand_in, tmp_path, 134, PROMPTMAD_RESTARTS="2")
    assert done.returncode == 134 and "given up" in done.stderr
    assert made[-1].startswith("srun")


def test_slurm_header():
    header = re.findall(r"^#SBATCH (\S+)$", (LAUNCH / "slurm.sbatch").read_text(), re.MULTILINE)
    options = dict(option.lstrip("-").partition("=")[::2] for option in header)
    assert {"requeue", "open-mode", "signal", "ntasks-per-node", "gpus-per-node"} <= options.keys()
    # One process a GPU, which is what jax takes a Slurm task for.
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    name, seconds = options["signal"].split("@")
    assert name == "USR1" and int(seconds) >= 60


def test_sweep_as_a_slurm_array(stand_in, tmp_path):
    stand_in("sbatch")
    sweep = [sys.executable, str(LAUNCH / "sweep.py"), "--config=configs/quickstart.py"]
    options = [f"--workdir={tmp_path / 'a b'}", "--slurm", "--parallel=2"]
    extra = ["--", "--config.data.classes=('x','y')"]
    subprocess.run([*sweep, *options, *extra], cwd=ROOT, check=True, capture_output=True)
    (made,) = calls(tmp_path)
    lines = tmp_path / "a b" / "sweep_arguments.txt"
    assert made == (
        f"sbatch --array=0-2%2 --export=ALL,PROMPTMAD_SWEEP={lines} {LAUNCH / 'slurm.sbatch'}"
    )
    environment = {"PROMPTMAD_SWEEP": str(lines), "SLURM_ARRAY_TASK_ID": "1"}
    _, made = slurm(stand_in, tmp_path, 0, **environment)
    folder = tmp_path / "a b" / "001_train.seed=1"
    assert made[-1] == (
        f"{TRAIN} --config=configs/quickstart.py --workdir={folder} --config.train.seed=1 "
        "--config.data.classes=('x','y')"
    )


SWEPT = """
def get_hyper():
    return [{"train.seed": 1, "optimizer.learning_rate": 1e-3}, {"train.seed": 2}]
"""


def test_sweep_on_this_machine(tmp_path, monkeypatch):
    (tmp_path / "swept.py").write_text(SWEPT)
    # A package in the place of ours, which is told to stop once and fails for the seed 2.
    package = tmp_path / "promptmad_jax"
    package.mkdir()
    (package / "train.py").write_text(
        "import pathlib, sys\n"
        "told = pathlib.Path('told')\n"
        "print(*sys.argv[1:])\n"
        "if not told.exists():\n"
        "    told.touch()\n"
        f"    sys.exit({REQUEUE_STATUS})\n"
        "sys.exit(3 if '--config.train.seed=2' in sys.argv else 0)\n"
    )
    command = [sys.executable, str(LAUNCH / "sweep.py"), "--config=swept.py:a", "--workdir=runs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "1 of 2 runs are complete" in done.stdout and "failed: 001_train.seed=2" in done.stderr
    log = tmp_path / "runs" / "000_train.seed=1_optimizer.learning_rate=0.001" / "log.txt"
    line = (
        f"--config=swept.py:a --workdir={log.parent.relative_to(tmp_path)} "
        "--config.train.seed=1 --config.optimizer.learning_rate=0.001\n"
    )
    assert log.read_text() == line * 2


def test_sweep_needs_settings(tmp_path):
    (tmp_path / "plain.py").write_text("")
    command = [sys.executable, str(LAUNCH / "sweep.py"), "--workdir=runs"]
    for config, message in (("plain.py", "has no get_hyper()"), ("absent.py", "no such file")):
        done = subprocess.run(
            [*command, f"--config={config}"], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 2 and message in done.stderr


# The state of the request, one line a query; the training ends with the statuses in turn.
GCLOUD = """
take() { head -n 1 "$1"; [[ "$(wc -l < "$1")" -le 1 ]] || sed -i 1d "$1"; }
case "$*" in
  *describe*) state="$(take "$STATES")"; [[ "$state" != NONE ]] || exit 1; echo "$state" ;;
  *promptmad_jax.train*) exit "$(take "$STATUSES")" ;;
esac
"""


def tpu(stand_in, tmp_path, states, statuses, *arguments, **environment):
    stand_in("gcloud", GCLOUD)
    (tmp_path / "states").write_text("\n".join(states) + "\n")
    (tmp_path / "statuses").write_text("\n".join(map(str, statuses)) + "\n")
    environment |= {"TPU_NAME": "pod", "TPU_ZONE": "zone-a", "TPU_POLL_SECONDS": "0"}
    environment |= {name: str(tmp_path / name.lower()) for name in ("STATES", "STATUSES")}
    done = launch("tpu_pod.sh", *arguments, **environment)
    made = [call for call in calls(tmp_path) if "describe" not in call]
    return done, [call.removeprefix("gcloud compute tpus ") for call in made]


def test_tpu_asks_installs_and_trains_on_all_hosts(stand_in, tmp_path):
    states = ["NONE", "WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "ACTIVE"]
    arguments = ("all", "--", "--config=x.py", "--config.data.classes=('a','b')")
    done, made = tpu(stand_in, tmp_path, states, [0], *arguments, TPU_SPOT="1")
    assert done.returncode == 0, done.stderr
    create, copy, install, train = made
    assert create == (
        "queued-resources create pod --zone=zone-a --node-id=pod --accelerator-type=v5litepod-16 "
        "--runtime-version=v2-alpha-tpuv5-lite --spot"
    )
    assert copy == f"tpu-vm scp --recurse {ROOT} pod:promptmad --zone=zone-a --worker=all"
    assert install.startswith("tpu-vm ssh pod --zone=zone-a --worker=all --command=cd promptmad")
    assert train.endswith(
        "exec .venv/bin/python -u -m promptmad_jax.train --distributed --config=x.py "
        r"--config.data.classes=\(\'a\'\,\'b\'\)"
    )


def test_tpu_begins_again_when_the_slice_is_taken_away(stand_in, tmp_path):
    states = ["ACTIVE", "ACTIVE", "SUSPENDED", "ACTIVE"]
    done, made = tpu(stand_in, tmp_path, states, [255, 0], "all")
    assert done.returncode == 0 and "status 255; restart 1" in done.stderr
    kinds = [" ".join(call.split()[:2]) for call in made]
    assert kinds[3:5] == ["queued-resources delete", "queued-resources create"]
    assert sum("promptmad_jax.train" in call for call in made) == 2


def test_tpu_does_not_repeat_a_mistake(stand_in, tmp_path):
    done, made = tpu(stand_in, tmp_path, ["ACTIVE"], [USER_ERROR_STATUS], "all")
    assert done.returncode == USER_ERROR_STATUS
    assert sum("promptmad_jax.train" in call for call in made) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "give create"), (("train", "--config=x"), "after --"), (("fly",), "fly: unknown")],
)
def test_tpu_mistakes(arguments, message):
    done = launch("tpu_pod.sh", *arguments, TPU_NAME="pod", TPU_ZONE="zone-a")
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.parametrize("path", JOBSETS, ids=lambda path: path.name)
def test_jobset(path):
    jobset = yaml.safe_load(path.read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", jobset["metadata"]["name"])
    spec = jobset["spec"]
    assert spec["failurePolicy"]["maxRestarts"] > 0
    (rule,) = spec["failurePolicy"]["rules"]
    assert rule["action"] == "FailJobSet" and rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert re.fullmatch(r"[A-Za-z]\w*", rule["name"])
    (replicated,) = spec["replicatedJobs"]
    assert replicated["replicas"] >= 1
    job = replicated["template"]["spec"]
    # What a JobSet restarts is a job that failed with its first pod.
    assert job["backoffLimit"] == 0 and job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"] >= 1
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never" and pod["terminationGracePeriodSeconds"] >= 60
    (container,) = pod["containers"]
    (failure,) = job["podFailurePolicy"]["rules"]
    assert failure["action"] == "FailJob"
    assert failure["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "In",
        "values": [USER_ERROR_STATUS],
    }
    limits = container["resources"]["limits"]
    assert limits.keys() & {"google.com/tpu", "nvidia.com/gpu"}
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    assert any(argument.startswith("--workdir=gs://") for argument in container["args"])


def test_gpu_jobset_names_its_first_pod():
    jobset = yaml.safe_load((LAUNCH / "gke_jobset_gpu.yaml").read_text())
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    container = job["template"]["spec"]["containers"][0]
    values = {entry["name"]: entry for entry in container["env"]}
    name = jobset["metadata"]["name"]
    host, _, port = values["JAX_COORDINATOR_ADDRESS"]["value"].partition(":")
    assert host == f"{name}-{replicated['name']}-0-0.{name}"
    assert int(port) in [entry["containerPort"] for entry in container["ports"]]
    assert int(values["JAX_NUM_PROCESSES"]["value"]) == job["completions"]
    field = values["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert field == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert jobset["spec"]["network"]["enableDNSHostnames"] is True


def test_dockerfile_copies_what_is_there():
    text = (LAUNCH / "Dockerfile").read_text()
    copied = [
        name for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for name in line.split()
    ]
    assert copied and all((ROOT / name).exists() for name in copied)
    (entry,) = re.findall(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)
    assert entry == '["python", "-u", "-m", "promptmad_jax.train"]'
    extras = (ROOT / "setup.py").read_text()
    for extra in ("cuda", "tpu", "test", "gcs"):
        assert f'"{extra}": [' in extras
