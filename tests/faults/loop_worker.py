"""The training loop with a step that only counts, in a process that can be killed.

Usage: loop_worker.py DIRECTORY [ADDRESS COUNT INDEX]; prints every step and, where it is alone, at
the end the digest of the last state. Arrays are split over all devices of all processes.
"""

import hashlib
import sys
import traceback

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from promptmad_jax.runtime import process_exit as leaving
from promptmad_jax.runtime.checkpoint import Checkpoints
from promptmad_jax.runtime.mesh import MeshConfig, make_mesh, open_channels, state_shardings
from promptmad_jax.runtime.preemption import Preemption
from promptmad_jax.training.config import TrainConfig
from promptmad_jax.training.log import TrainLog
from promptmad_jax.training.loop import Task, train_loop
from promptmad_jax.training.state import TrainState, abstract_state

STEPS = 60
CONFIG = TrainConfig(
    batch_size=1, steps=STEPS, log_every=1, checkpoint_every=2, keep=2, keep_every=20
)


def init(key):
    params = {"w": jnp.ones((300, 300))}
    return TrainState(jnp.int32(0), params, {}, {"m": jnp.zeros((300, 300))}, key)


def fresh():
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1))
    shapes = jax.eval_shape(init, jax.random.key(0))
    shardings = state_shardings(mesh, shapes, fsdp_min_elements=1000)
    return jax.jit(init, out_shardings=shardings)(jax.random.key(0))


@jax.jit
def descend(state, batch):
    noise = jax.random.normal(jax.random.fold_in(state.key, state.step), (300, 300))
    moment = state.opt_state["m"] * 0.9 + noise
    params = {"w": state.params["w"] + 0.01 * moment * batch}
    metrics = {"loss": moment.mean(), "grad_norm": noise.max()}
    return state._replace(step=state.step + 1, params=params, opt_state={"m": moment}), metrics


def batch_of(step):
    print("step", step + 1, flush=True)
    return np.float32(step)


def train(directory):
    """Trains, or goes on, to the end. Returns the last state."""
    checkpoints = Checkpoints(f"{directory}/checkpoints", CONFIG.keep, CONFIG.keep_every)
    state = fresh()
    found = checkpoints.resume(abstract_state(state))
    state = state if found is None else found[1]
    start = int(state.step)
    task = Task(descend, batch_of, lambda state: {})
    log = TrainLog(epath.Path(directory), {}, CONFIG, start)
    with Preemption() as preemption, log:
        state = train_loop(state, task, CONFIG, checkpoints, log, preemption)
    checkpoints.close()
    return state


def digest(state):
    """Of every array, whatever the devices that hold it."""
    leaves = jax.tree.leaves(state._replace(key=jax.random.key_data(state.key)))
    return hashlib.sha256(b"".join(jax.device_get(leaf).tobytes() for leaf in leaves)).hexdigest()


def join(address, count, index):
    """Joins the other processes, and meets them before anything is compiled."""
    jax.distributed.initialize(address, count, index, heartbeat_timeout_seconds=10)
    leaving.joined(index, count)
    open_channels(make_mesh(MeshConfig(data=1, fsdp=-1)))


def main(directory, *place):
    if not place:
        print("digest", digest(train(directory)))
        return
    address, count, index = place
    join(address, int(count), int(index))
    try:
        train(directory)
    except Exception:
        traceback.print_exc()
        leaving.leave(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
