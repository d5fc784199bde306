"""Kills a small training again and again; it must end as if nothing had happened.

    python tests/faults/kill_many.py --kills=20 [--processes=2] [--model=uniad]
        [--steps=150] [--seed=0] [--workdir=DIR]

Trains the quickstart, shrunk, twice without a fault. Then runs of the same command are hit by
SIGKILL at random moments: while they start, while they train, and inside a save. Every run is given
the same command until it ends, and then its last checkpoint (parameters, statistics, optimizer,
key) and its metrics.json must equal those of the first to the bit. With several processes one of
them is killed, and launch/local_multiprocess.sh has to do the rest. Prints one line a kill and a
JSON summary; the exit status is 1 if any run ended otherwise.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
KILLS_A_RUN = 5
PATIENCE_SECONDS = 3600
UNIAD = ["--config.model=uniad", "--config.eval.fusion=reconstruction"]
MODELS = {  # argument of the configuration, and what it does not say
    "promptmad": ("smoke", []),
    "onenip": ("onenip,smoke", []),
    "uniad": ("onenip,smoke", UNIAD),
}
MOMENTS = {"saving": 0.4, "training": 0.4, "anywhere": 0.2}


def environment():
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "PYTHONPATH": str(ROOT),
        "PROMPTMAD_PYTHON": sys.executable,
    }


def prepare(directory):
    """Makes the data that all runs train on."""
    arguments = [
        "--dataset=synthetic_mvtec",
        f"--data_dir={directory}",
        "--class_names=wood_board,hex_bolt",
        "--image_size=64",
        "--train_per_class=6",
        "--test_good_per_class=2",
        "--test_per_defect=1",
    ]
    subprocess.run(
        [sys.executable, "-m", "promptmad_jax.prepare", *arguments],
        env=environment(),
        cwd=ROOT,
        check=True,
        capture_output=True,
    )


def launch_command(options, data, workdir):
    """The arguments that a user would type: fifteen checkpoints and an evaluation on the way."""
    arguments = [
        f"--config=quickstart.py:{MODELS[options.model][0]}",
        f"--workdir={workdir}",
        f"--config.data.data_dir={data}",
        f"--config.train.steps={options.steps}",
        f"--config.train.checkpoint_every={options.steps // 15}",
        f"--config.train.eval_every={options.steps * 7 // 15}",
        "--config.train.log_every=1",
        *MODELS[options.model][1],
    ]
    if options.processes == 1:
        return [sys.executable, "-m", "promptmad_jax.train", *arguments]
    launcher = ["bash", "launch/local_multiprocess.sh", str(options.processes)]
    return [*launcher, "--restarts=1000", "--grace=20", "--", *arguments]


class Training:
    """One command, started again by itself or by us, until it ends."""

    def __init__(self, options, root, name):
        self.processes, self.steps, self.workdir = options.processes, options.steps, root / name
        self._command = launch_command(options, root / "data", self.workdir)
        self._log = (root / f"{name}.log").open("ab")
        self._process = None

    def start(self):
        """Starts the command unless it runs: a launcher starts its processes again by itself."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                self._command, env=environment(), cwd=ROOT, stdout=self._log, stderr=self._log
            )

    def workers(self):
        """The training processes that run now."""
        if self.processes == 1:
            return [self._process.pid] if self._process.poll() is None else []
        path = pathlib.Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        children = [int(pid) for pid in path.read_text().split()] if path.exists() else []
        return [pid for pid in children if b"promptmad_jax.train" in _command_line(pid)]

    def kill_one(self, rng):
        """SIGKILL to one process; returns once it is gone."""
        pid = rng.choice(self.workers())
        os.kill(pid, signal.SIGKILL)
        if self.processes == 1:
            self._process.wait()
        while pid in self.workers():
            time.sleep(0.005)

    def ended(self):
        """The exit status, or None."""
        return self._process.poll()

    def wait(self):
        """Waits for the end, which must be a success."""
        status = self._process.wait(timeout=PATIENCE_SECONDS)
        if status:
            raise SystemExit(f"{self.workdir} ended with status {status}; see {self._log.name}")

    def step(self):
        """The last step that was logged."""
        path = self.workdir / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return max((json.loads(line)["step"] for line in lines), default=0)

    def saving(self):
        """Returns True while a checkpoint is being written."""
        return any((self.workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))


def _command_line(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_until(training, condition):
    """Polls; False if the run ends first."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if training.ended() is not None:
            return False
        if time.monotonic() > deadline:
            raise SystemExit(f"{training.workdir}: nothing happens")
        time.sleep(0.001)
    return True


def hit(training, moment, seconds, rng):
    """Waits for the moment and kills; False if the run ends before it comes.

    Args:
        seconds: that an undisturbed run takes.
    """
    begun = training.step()
    alive = lambda: len(training.workers()) == training.processes
    if not wait_until(training, alive):
        return False
    if moment == "saving":
        # What the last kill left behind is deleted as the run goes on.
        reached = wait_until(training, lambda: training.step() > begun and training.saving())
        time.sleep(rng.uniform(0, 0.02))
    elif moment == "training":
        target = begun + rng.randint(1, training.steps // 5)
        reached = wait_until(training, lambda: training.step() >= target)
        time.sleep(rng.uniform(0, 0.2))
    else:
        until = time.monotonic() + rng.uniform(0, seconds)
        reached = wait_until(training, lambda: time.monotonic() >= until)
    if not reached or not training.workers():
        return False
    training.kill_one(rng)
    return True


def run_and_kill(training, kills, seconds, rng):
    """Kills a run up to `kills` times, then lets it end; one record a kill."""
    records = []
    training.start()
    while len(records) < kills:
        moment = rng.choices(list(MOMENTS), MOMENTS.values())[0]
        if not hit(training, moment, seconds, rng):
            break
        step, inside = training.step(), training.saving()
        newest = max(saved_steps(training.workdir), default=0)
        records.append({"moment": moment, "step": step, "inside_save": inside, "saved": newest})
        print(f"{training.workdir.name}: killed, {json.dumps(records[-1])}", flush=True)
        training.start()
    training.wait()
    return records


def saved_steps(workdir):
    directory = workdir / "checkpoints"
    names = [path.name for path in directory.iterdir()] if directory.exists() else []
    return [int(name) for name in names if name.isdigit()]


def fingerprint(training):
    """Digest of the last state, and of the metrics."""
    sys.path.insert(0, str(ROOT))
    import jax

    from promptmad_jax.runtime.orbax_store import OrbaxStore

    store = OrbaxStore(training.workdir / "checkpoints", 1, 0, lambda directory: None)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    arrays = store.arrays(training.steps)
    wanted = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=device)
        for name, array in arrays.items()
    }
    table = store.read(training.steps, wanted)
    store.close(failed=False)
    digest = hashlib.sha256()
    for name in sorted(table):
        array = table[name]
        if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
            array = jax.random.key_data(array)
        digest.update(name.encode() + jax.device_get(array).tobytes())
    return digest.hexdigest(), (training.workdir / "metrics.json").read_bytes()


def undisturbed(options, root, kind):
    """Seconds that a run without a fault takes, and how it ends: twice the same."""
    first, second = (Training(options, root, f"{kind}_{name}") for name in ("undisturbed", "again"))
    seconds = root / f"{second.workdir.name}.seconds"
    if not seconds.exists():
        for training in (first, second):
            training.start()
            taken, _ = timed(training.wait)
        seconds.write_text(str(taken))  # With what the first has compiled.
    ends = [fingerprint(training) for training in (first, second)]
    if ends[0] != ends[1]:
        raise SystemExit(f"{first.workdir} and {second.workdir} differ without a kill")
    return float(seconds.read_text()), ends[0]


def timed(work):
    begin = time.monotonic()
    result = work()
    return time.monotonic() - begin, result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--model", default="promptmad", choices=MODELS)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workdir", default="", help="may hold what another seed has left there")
    options = parser.parse_args()
    root = pathlib.Path(options.workdir or tempfile.mkdtemp(prefix="kill_many-")).resolve()
    root.mkdir(parents=True, exist_ok=True)
    rng = random.Random(options.seed)
    if not (root / "data").exists():
        prepare(root / "data")
    kind = f"{options.model}_{options.processes}x{options.steps}"
    seconds, expected = undisturbed(options, root, kind)
    records, lost, wrong, runs = [], 0.0, [], 0
    while len(records) < options.kills:
        training = Training(options, root, f"{kind}_seed{options.seed}_run{runs}")
        kills = min(KILLS_A_RUN, options.kills - len(records))
        taken, new = timed(lambda t=training, k=kills: run_and_kill(t, k, seconds, rng))
        records, lost, runs = records + new, lost + taken - seconds, runs + 1
        if fingerprint(training) != expected:
            wrong.append(training.workdir.name)
    summary = {
        "processes": options.processes,
        "model": options.model,
        "steps": options.steps,
        "kills": len(records),
        "inside_save": sum(record["inside_save"] for record in records),
        "runs": runs,
        "ended_otherwise": wrong,
        "undisturbed_s": round(seconds, 1),
        "lost_s_a_kill": round(lost / len(records), 1),
        "steps_repeated_a_kill": sum(r["step"] - r["saved"] for r in records) / len(records),
    }
    print(json.dumps(summary))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
