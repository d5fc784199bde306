"""Checkpoints come back exactly, onto any mesh, whole or not at all."""

import contextlib
import dataclasses
import gc
import json
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import promptmad_jax
from promptmad_jax.runtime import mesh as mesh_lib
from promptmad_jax.runtime.checkpoint import Checkpoints, DamagedCheckpoint
from promptmad_jax.runtime.errors import UserError

TX = optax.adam(1e-3)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class State:
    step: jax.Array
    key: jax.Array
    params: dict
    opt_state: optax.OptState


def init(key):
    params = {
        "neck": {"kernel": jax.random.normal(key, (8, 16))},
        "scale": jnp.ones(3, jnp.bfloat16),
    }
    return State(jnp.int32(4), jax.random.fold_in(key, 1), params, TX.init(params))


def placed_state(mesh):
    """The state made on `mesh`, and the abstract form of it."""
    abstract = jax.eval_shape(init, jax.random.key(0))
    shardings = mesh_lib.state_shardings(mesh, abstract, fsdp_min_elements=64)
    state = jax.jit(init, out_shardings=shardings)(jax.random.key(0))
    return state, abstract_of(abstract, shardings)


def abstract_of(tree, shardings):
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        tree,
        shardings,
    )


def numbers(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def assert_same(restored, state, abstract):
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for got, want, target in zip(*map(jax.tree.leaves, (restored, state, abstract)), strict=True):
        assert got.dtype == want.dtype
        assert got.sharding.is_equivalent_to(target.sharding, got.ndim)
        np.testing.assert_array_equal(numbers(got), numbers(want))


@pytest.fixture
def sharded():
    return placed_state(mesh_lib.make_mesh(mesh_lib.MeshConfig(-1, 2)))


@pytest.fixture
def single():
    return placed_state(mesh_lib.make_mesh(mesh_lib.MeshConfig(1, 1)))


@pytest.fixture
def opened():
    """Opens checkpoints, which the end of the test closes."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(
            contextlib.closing(Checkpoints(*args, **kwargs))
        )


@pytest.fixture
def checkpoints(tmp_path, opened):
    return opened(tmp_path / "checkpoints", keep=2)


@pytest.mark.smoke
def test_eight_devices_to_one_and_back(tmp_path, opened, sharded, single):
    state, abstract = sharded
    assert not state.params["neck"]["kernel"].sharding.is_fully_replicated
    first, second = (opened(tmp_path / name, keep=1) for name in ("eight", "one"))
    first.save(4, state)
    first.wait()
    on_one = first.restore(4, single[1])
    assert_same(on_one, state, single[1])
    second.save(4, on_one)
    second.wait()
    back = second.restore(4, abstract)
    assert_same(back, state, abstract)
    assert jax.random.bits(back.key) == jax.random.bits(state.key)


def test_newest_are_kept_and_latest_is_found(checkpoints, single, opened):
    assert checkpoints.latest_step() is None
    for step in (1, 5, 10):
        checkpoints.save(step, single[0])
    checkpoints.close()
    reopened = opened(checkpoints.directory, keep=2)
    assert reopened.latest_step() == 10
    assert sorted(path.name for path in reopened.directory.iterdir()) == ["10", "5"]


def test_saving_the_newest_again_does_nothing_and_an_older_one_fails(checkpoints, single):
    checkpoints.save(5, single[0])
    checkpoints.save(5, single[0])
    with pytest.raises(ValueError, match="step 3 is older than checkpoint 5"):
        checkpoints.save(3, single[0])


def test_donated_arrays_are_saved_as_they_were(checkpoints, single):
    sharding = single[1].step.sharding
    grow = jax.jit(lambda x: x + 1, donate_argnums=0)
    array = jax.device_put(jnp.zeros((1024, 1024)), sharding)
    checkpoints.save(1, {"array": array})
    for _ in range(20):
        array = grow(array)
    checkpoints.wait()
    target = {"array": jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)}
    assert not checkpoints.restore(1, target)["array"].any()


def test_process_killed_while_it_saves_leaves_the_last_whole_step(tmp_path):
    code = """
import sys, jax.numpy as jnp
from promptmad_jax.runtime.checkpoint import Checkpoints, DamagedCheckpoint
checkpoints = Checkpoints(sys.argv[1], keep=2)
for step in range(1, 10**6):
    checkpoints.save(step, {"array": jnp.full((500, 500), step)})
    print(step, flush=True)
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(promptmad_jax.__file__))},
    )
    for _ in range(6):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    checkpoints = Checkpoints(tmp_path, keep=2)
    step = checkpoints.latest_step()
    assert step >= 4
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = {"array": jax.ShapeDtypeStruct((500, 500), jnp.int32, sharding=sharding)}
    assert (checkpoints.restore(step, target)["array"] == step).all()
    checkpoints.save(step + 1, {"array": jnp.zeros(3)})
    checkpoints.close()
    assert checkpoints.latest_step() == step + 1


def test_half_written_directory_is_passed_over(checkpoints, single, opened):
    state, abstract = single
    checkpoints.save(1, state)
    checkpoints.close()
    half = checkpoints.directory / "2.orbax-checkpoint-tmp" / "default"
    half.mkdir(parents=True)
    (half / "manifest.ocdbt").write_bytes(b"half")
    reopened = opened(checkpoints.directory, keep=2)
    assert reopened.latest_step() == 1
    step, restored = reopened.resume(abstract)
    assert step == 1 and not half.exists()
    assert_same(restored, state, abstract)


def flip(path, at=0.5):
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def largest(directory):
    return max((path for path in directory.rglob("*") if path.is_file()), key=os.path.getsize)


@pytest.fixture
def two_steps(tmp_path, single):
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(1, single[0])
    checkpoints.save(2, single[0])
    checkpoints.close()
    return tmp_path


@pytest.mark.parametrize("damage", [flip, cut, os.unlink])
def test_damaged_newest_is_named_and_the_one_before_taken(
    two_steps, single, opened, capsys, damage
):
    state, abstract = single
    path = largest(two_steps / "2")
    damage(path)
    checkpoints = opened(two_steps, keep=3)
    with pytest.raises(DamagedCheckpoint) as caught:
        checkpoints.restore(2, abstract)
    name = path.relative_to(two_steps / "2")
    fault = "is missing" if damage is os.unlink else "was changed or cut short"
    message = f"{two_steps}/2 is damaged: {name} {fault}; the one before it is of step 1"
    assert str(caught.value) == message
    step, restored = checkpoints.resume(abstract)
    assert step == 1
    assert_same(restored, state, abstract)
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {message}",
        "warning: took the checkpoint of step 1 instead",
    ]
    assert checkpoints.steps() == [1] and (two_steps / "2.damaged").exists()
    checkpoints.save(2, state)
    checkpoints.wait()
    assert_same(checkpoints.restore(2, abstract), state, abstract)


def test_reader_takes_the_one_before_and_leaves_the_files(two_steps, single, opened):
    cut(largest(two_steps / "2"))
    checkpoints = opened(two_steps, keep=3)
    step, restored = checkpoints.restore_newest(single[1])
    assert step == 1 and checkpoints.steps() == [1, 2]
    assert_same(restored, *single)


def test_all_damaged_is_no_fresh_start(two_steps, single, opened):
    flip(largest(two_steps / "1"))
    flip(largest(two_steps / "2"))
    checkpoints = opened(two_steps, keep=3)
    with pytest.raises(DamagedCheckpoint, match=r"no checkpoint in .* is undamaged"):
        checkpoints.resume(single[1])
    assert checkpoints.steps() == [1, 2]


def test_metadata_that_cannot_be_read_is_damage(two_steps, single, opened):
    (two_steps / "2" / "_CHECKPOINT_METADATA").write_text("{")
    (two_steps / "1" / "_CHECKPOINT_METADATA").unlink()
    checkpoints = opened(two_steps, keep=3)
    with pytest.raises(DamagedCheckpoint, match="_CHECKPOINT_METADATA was changed"):
        checkpoints.restore(2, single[1])
    with pytest.raises(DamagedCheckpoint, match="METADATA is missing; it is the oldest"):
        checkpoints.restore(1, single[1])


def test_checkpoint_from_before_there_were_checksums(two_steps, single, opened):
    metadata = two_steps / "2" / "_CHECKPOINT_METADATA"
    metadata.write_text(metadata.read_text().replace('{"checksums": true}', "{}"))
    (two_steps / "2" / "checksums.json").unlink()
    checkpoints = opened(two_steps, keep=3)
    assert_same(checkpoints.restore(2, single[1]), *single)


def test_failed_save_is_told_and_leaves_the_others(tmp_path, single, opened, file_size_limit):
    state, abstract = single
    checkpoints = opened(tmp_path, keep=2)
    for step in (1, 2):
        checkpoints.save(step, state)
    checkpoints.wait()
    with file_size_limit(100):
        checkpoints.save(3, state)
        checkpoints.wait()
    ((step, reason),) = checkpoints.failures()
    assert step == 3 and "File too large" in reason
    assert checkpoints.failures() == []
    assert checkpoints.steps() == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    checkpoints.save(4, state)
    checkpoints.wait()
    assert checkpoints.failures() == [] and checkpoints.steps() == [2, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4"]
    assert_same(checkpoints.restore(4, abstract), state, abstract)


def test_directory_that_cannot_be_written(tmp_path, single, recwarn):
    directory = tmp_path / "checkpoints"
    checkpoints = Checkpoints(directory, keep=2)
    checkpoints.save(1, single[0])
    checkpoints.wait()
    directory.rename(tmp_path / "away")
    directory.write_text("in the way")
    for step in (2, 3):
        checkpoints.save(step, single[0])
        checkpoints.wait()
        assert [failure.step for failure in checkpoints.failures()] == [step]
    directory.unlink()
    (tmp_path / "away").rename(directory)
    checkpoints.save(4, single[0])
    checkpoints.close()
    assert checkpoints.failures() == [] and checkpoints.steps() == [1, 4]
    gc.collect()
    assert not [warning for warning in recwarn if "never awaited" in str(warning.message)]


def test_every_kth_is_kept_beside_the_newest(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2, keep_every=4)
    for step in range(1, 11):
        checkpoints.save(step, {"array": jnp.full(3, step)})
    checkpoints.close()
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [4, 8, 9, 10]


def test_a_part_is_read_without_the_rest(checkpoints, single, monkeypatch):
    state, abstract = single
    checkpoints.save(1, state)
    checkpoints.wait()
    part = {"params": abstract.params, "step": abstract.step}
    names, read = [], checkpoints._store.read
    record = lambda step, wanted: names.extend(wanted) or read(step, wanted)
    monkeypatch.setattr(checkpoints._store, "read", record)
    restored = checkpoints.restore_part(1, part)
    assert set(names) == {"params/neck/kernel", "params/scale", "step"}
    assert_same(restored, {"params": state.params, "step": state.step}, part)
    part["params"] = {"neck": abstract.params["neck"]}
    with pytest.raises(UserError, match="params/scale is not in the model"):
        checkpoints.restore_part(1, part)


def test_other_model_is_told_apart(checkpoints, single):
    state, abstract = single
    checkpoints.save(1, state)
    checkpoints.wait()
    sharding = abstract.step.sharding
    kernel = jax.ShapeDtypeStruct((8, 32), jnp.float32, sharding=sharding)
    params = {"neck": {"kernel": kernel}, "new": kernel}
    step = jax.ShapeDtypeStruct((), jnp.float32, sharding=sharding)
    other = dataclasses.replace(abstract, params=params, step=step)
    with pytest.raises(UserError, match="belongs to another model") as caught:
        checkpoints.restore(1, other)
    message = str(caught.value)
    assert "params/new is not in the checkpoint" in message
    assert "params/scale is not in the model" in message
    assert "kernel is float32[8, 16] in the checkpoint and float32[8, 32] in the model" in message
    assert "step is int32[] in the checkpoint and float32[] in the model" in message


def test_step_that_is_not_there(checkpoints, single):
    with pytest.raises(UserError, match="no checkpoint of step 7"):
        checkpoints.restore(7, single[1])


def test_config_is_kept_beside_the_steps(checkpoints, single):
    config = {"model": {"width": 8}, "seed": 1}
    checkpoints.write_config(config)
    checkpoints.save(1, single[0])
    checkpoints.wait()
    assert json.loads((checkpoints.directory / "config.json").read_text()) == config
    assert checkpoints.latest_step() == 1


def test_keep_must_be_positive(tmp_path):
    with pytest.raises(UserError, match="at least 1, not 0"):
        Checkpoints(tmp_path, keep=0)
    with pytest.raises(UserError, match="at least 0, not -5"):
        Checkpoints(tmp_path, keep=1, keep_every=-5)
