"""All launchers, and those of clusters, with stand-ins for srun, scontrol and sbatch."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from promptmad_jax.runtime.interrupts import REQUEUE_STATUS
from promptmad_jax.runtime.process_exit import USER_ERROR_STATUS
from tests.distributed.launching import LAUNCH, calls, launch
from tests.distributed.processes import ROOT

SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
JOBSETS = sorted(LAUNCH.glob("gke_jobset_*.yaml"))
SHELLCHECK = shutil.which(
    "shellcheck", path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
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
    both = f"USER_ERROR={USER_ERROR_STATUS} REQUEUE={REQUEUE_STATUS}"
    for name, line in (
        ("slurm.sbatch", both),
        ("tpu_pod.sh", both),
        ("local_multiprocess.sh", f"USER_ERROR={USER_ERROR_STATUS}\n"),
        ("sweep.py", f"USER_ERROR, REQUEUE = {USER_ERROR_STATUS}, {REQUEUE_STATUS}\n"),
    ):
        assert line in (LAUNCH / name).read_text()


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
    assert done.returncode == 134 and "giving up" in done.stderr
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
    sweep = [sys.executable, str(LAUNCH / "sweep.py"), "--config=quickstart.py"]
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
        f"{TRAIN} --config=quickstart.py --workdir={folder} --config.train.seed=1 "
        "--config.data.classes=('x','y')"
    )


SWEPT = """
def get_hyper():
    return [{"train.seed": 1, "optimizer.learning_rate": 1e-3}, {"train.seed": 2}]
"""


def test_sweep_on_this_machine(tmp_path):
    (tmp_path / "swept.py").write_text(SWEPT)
    # A package in place of ours, which is preempted once and fails for the seed 2.
    package = tmp_path / "promptmad_jax"
    package.mkdir()
    (package / "__init__.py").touch()
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


@pytest.mark.parametrize("path", JOBSETS, ids=lambda path: path.name)
def test_jobset(path):
    jobset = yaml.safe_load(path.read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", jobset["metadata"]["name"])
    spec = jobset["spec"]
    assert spec["failurePolicy"]["maxRestarts"] > 0
    (rule,) = spec["failurePolicy"]["rules"]
    assert rule["action"] == "FailJobSet" and rule["onJobFailureReasons"] == ["PodFailurePolicy"]
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
    codes = {"operator": "In", "values": [USER_ERROR_STATUS]}
    assert failure["action"] == "FailJob"
    assert failure["onExitCodes"] == {"containerName": container["name"]} | codes
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
    copied = " ".join(re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)).split()
    assert copied and all((ROOT / name).exists() for name in copied)
    assert '\nENTRYPOINT ["python", "-u", "-m", "promptmad_jax.train"]\n' in text
    extras = (ROOT / "setup.py").read_text()
    assert all(f'"{extra}": [' in extras for extra in ("cuda", "tpu", "test", "gcs"))
