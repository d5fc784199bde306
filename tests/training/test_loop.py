"""What the loop saves, tells and does when it is told to stop; the step only counts."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.runtime.checkpoint import Checkpoints
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.interrupts import REQUEUE_STATUS, Preempted
from promptmad_jax.runtime.metrics_log import read_metrics
from promptmad_jax.runtime.preemption import Preemption
from promptmad_jax.training.config import TrainConfig
from promptmad_jax.training.log import TrainLog
from promptmad_jax.training.loop import Task, save_untrained, train_loop
from promptmad_jax.training.state import TrainState, abstract_state

STEPS = 12


def start():
    state = TrainState(jnp.int32(0), {"w": jnp.ones(4)}, {}, {}, jax.random.key(0))
    return jax.device_put(state, jax.sharding.SingleDeviceSharding(jax.devices()[0]))


@jax.jit
def count(state, batch):
    noise = jax.random.normal(jax.random.fold_in(state.key, state.step), (4,))
    params = {"w": state.params["w"] * 0.9 + noise * batch}
    metrics = {"loss": noise.sum(), "grad_norm": noise.max()}
    return state._replace(step=state.step + 1, params=params), metrics


@jax.jit
def count_slowly(state, batch):
    w, _ = jax.lax.scan(lambda w, _: (jnp.sin(w @ w), None), jnp.ones((200, 200)), length=300)
    state, metrics = count(state, batch)
    return state, metrics | {"loss": metrics["loss"] + 0 * w[0, 0]}


class Run:
    """A run in a directory, and what happened in it: `s3` a save, `e4` an evaluation."""

    def __init__(self, directory, **config):
        self.directory, self.events = directory, []
        self.config = TrainConfig(
            batch_size=1, steps=STEPS, **{"log_every": 2, "checkpoint_every": 4} | config
        )
        self.after_step = self.in_evaluation = lambda step: None
        self.source = jnp.float32

    def step(self, state, batch):
        state, metrics = count(state, batch)
        self.after_step(int(state.step))
        return state, metrics

    def evaluate(self, state):
        step = int(state.step)
        self.events.append(f"e{step}")
        self.in_evaluation(step)
        return {"ap": 0.5}

    def go(self):
        self.checkpoints = checkpoints = Checkpoints(self.directory / "checkpoints", keep=20)
        save = checkpoints.save
        checkpoints.save = lambda step, state: (self.events.append(f"s{step}"), save(step, state))
        found = checkpoints.resume(abstract_state(start()))
        state = start() if found is None else found[1]
        task = Task(lambda *args: self.step(*args), self.source, self.evaluate)
        try:
            with (
                Preemption() as preemption,
                TrainLog(self.directory, {}, self.config, int(state.step)) as log,
            ):
                return train_loop(state, task, self.config, checkpoints, log, preemption)
        finally:
            checkpoints.close()

    def rows(self, kind):
        return [
            row for row in read_metrics(self.directory / "metrics.jsonl") if row["kind"] == kind
        ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The parameters of a run that nothing stopped."""
    return np.asarray(Run(tmp_path_factory.mktemp("whole")).go().params["w"])


def at(step, do):
    return lambda now: do() if now == step else None


def send(number):
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="accelerators queue steps")
def test_on_a_cpu_no_step_waits_in_a_queue(tmp_path):
    run, losses, ready = Run(tmp_path, log_every=STEPS, checkpoint_every=STEPS), [], []

    def source(indices):
        # Already here: the last step's arrays are freed while the batch is cut.
        ready.extend(loss.is_ready() for loss in losses[-1:])
        return jnp.float32(indices)

    def step(state, batch):
        state, metrics = count_slowly(state, batch)
        losses.append(metrics["loss"])
        return state, metrics

    run.source, run.step = source, step
    run.go()
    assert len(ready) == STEPS - 1 and all(ready)


def test_a_step_is_saved_before_it_is_evaluated(tmp_path, whole):
    run = Run(tmp_path, eval_every=6, eval_at=(5, 12))
    state = run.go()
    assert run.events == ["s4", "s5", "e5", "s6", "e6", "s8", "s12"]
    assert [row["step"] for row in run.rows("train")] == [2, 4, 5, 6, 8, 10, 12]
    np.testing.assert_array_equal(state.params["w"], whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_told_to_stop_it_finishes_the_step_and_loses_nothing(tmp_path, whole, capsys, number):
    run = Run(tmp_path)
    run.after_step = at(7, send(number))
    with pytest.raises(Preempted) as caught:
        run.go()
    assert caught.value.code == REQUEUE_STATUS
    assert run.events == ["s4", "s7"]
    assert run.rows("train")[-1]["step"] == 7
    name = signal.Signals(number).name
    message = f"stopped by {name} after step 7 of 12 (that of 7 is saved); run the same command"
    assert message in capsys.readouterr().err
    again = Run(tmp_path)
    np.testing.assert_array_equal(again.go().params["w"], whole)
    assert again.events == ["s8", "s12"]
    assert [row["step"] for row in again.rows("train")] == [2, 4, 6, 7, 8, 10, 12]


def test_told_to_stop_in_an_evaluation_it_leaves_at_once(tmp_path, whole):
    run = Run(tmp_path, eval_at=(6,))
    run.in_evaluation = lambda step: (send(signal.SIGTERM)(), pytest.fail("went on"))
    with pytest.raises(Preempted):
        run.go()
    assert run.events == ["s4", "s6", "e6"] and not run.rows("eval")
    again = Run(tmp_path, eval_at=(6,))
    np.testing.assert_array_equal(again.go().params["w"], whole)
    assert again.events == ["e6", "s8", "s12"]
    assert [row["step"] for row in again.rows("eval")] == [6]


def test_told_to_stop_in_the_last_step_it_leaves_once_that_is_saved(tmp_path):
    run = Run(tmp_path)
    run.after_step = at(12, send(signal.SIGTERM))
    with pytest.raises(Preempted):
        run.go()
    assert run.events == ["s4", "s8", "s12"]


def test_second_signal_does_not_break_the_save(tmp_path):
    run = Run(tmp_path, eval_at=(6,))
    saved = []

    def stop(step):
        try:
            send(signal.SIGTERM)()
        finally:
            send(signal.SIGTERM)()
            saved.append(True)

    run.in_evaluation = stop
    with pytest.raises(Preempted):
        run.go()
    assert saved


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    run = Run(tmp_path)
    run.step = lambda state, batch: (count(state, batch)[0], {"loss": jnp.log(-batch - 1)})
    with pytest.raises(UserError, match="loss is not finite at step 1; the last checkpoint"):
        run.go()
    assert not run.events and [row["loss"] for row in run.rows("train")] == [None]


class FullDisk:
    """After step `begin`, once the saves before it are done, and until after step `end`."""

    def __init__(self, run, limit, begin, end):
        self._run, self._begin, self._end, self._limit = run, begin, end, limit(1000)

    def __call__(self, step):
        if step == self._begin:
            self._run.checkpoints.wait()
            self._limit.__enter__()
        elif step == self._end:
            self._run.checkpoints.wait()
            self.close()

    def close(self):
        self._limit.__exit__(None, None, None)


def test_full_disk_is_told_and_training_goes_on(tmp_path, whole, capsys, file_size_limit):
    run = Run(tmp_path)
    run.after_step = FullDisk(run, file_size_limit, begin=6, end=10)
    np.testing.assert_array_equal(run.go().params["w"], whole)
    assert run.events == ["s4", "s8", "s12"]
    assert [(row["step"], row["failed_save"]) for row in run.rows("fault")] == [(10, 8)]
    assert "checkpoint of step 8 could not be saved" in capsys.readouterr().err
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=20)
    assert checkpoints.steps() == [4, 12]
    checkpoints.close()


def test_last_state_that_cannot_be_saved_is_an_error(tmp_path, file_size_limit):
    run = Run(tmp_path)
    run.after_step = disk = FullDisk(run, file_size_limit, begin=10, end=None)
    try:
        with pytest.raises(UserError, match=r"could not be saved .* resumes from step 8"):
            run.go()
    finally:
        disk.close()
    assert run.events == ["s4", "s8", "s12", "s12"]


def test_a_run_without_a_step_that_cannot_be_saved_is_an_error(tmp_path, file_size_limit, capsys):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    with file_size_limit(0), pytest.raises(UserError, match=r"could not be saved .* from step 0"):
        save_untrained(start(), checkpoints)
    assert "checkpoint of step 0 could not be saved" in capsys.readouterr().err
    save_untrained(start(), checkpoints)
    assert checkpoints.steps() == [0]
    checkpoints.close()
