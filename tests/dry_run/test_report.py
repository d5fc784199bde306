"""The dry run: where the state lies, what is counted, what is refused."""

import io

import numpy as np
import pytest
from rich.console import Console

from promptmad_jax.config import parse
from promptmad_jax.dry_run import report as dry_run
from promptmad_jax.dry_run.collectives import Collective
from promptmad_jax.dry_run.memory import Memory, image_count, state_groups
from promptmad_jax.methods.reconstruction.abstract import abstract_training, text_width
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.mesh import abstract_mesh, partition_rules
from tests.trees import count_params

MIB = 2**20


def groups(fsdp, rules=()):
    raw = load_config("promptmad_mvtec.py")
    raw.mesh.rules = rules
    config = parse(raw)
    run = abstract_training(config, abstract_mesh(8 // fsdp, fsdp), "tpu")
    return run, state_groups(run.state, partition_rules(config.mesh))


def test_replicated_by_default():
    run, found = groups(1)
    assert {group.split for group in found} == {"replicated"}
    assert all(group.whole == group.device for group in found)
    parameters = sum(group.whole for group in found if group.name.startswith("params/"))
    assert parameters == 4 * count_params(run.state.params)


def test_fsdp_splits_parameters_and_optimizer():
    _, found = groups(8)
    for part in ("params/", "opt_state/"):
        mine = [group for group in found if group.name.startswith(part)]
        whole, device = sum(group.whole for group in mine), sum(group.device for group in mine)
        assert whole / 8 < device < whole / 5
        split = [group for group in mine if group.split != "replicated"]
        assert all(group.device * 8 == group.whole for group in split)
    assert {g.split for g in found if g.name.startswith(("stats/", "step", "key"))} == {
        "replicated"
    }


def test_rules_come_first():
    pattern = "reconstructor/.*lin1/kernel$"
    _, found = groups(2, ((pattern, ("", "fsdp")), ("", ())))
    (split,) = (g for g in found if g.rule == pattern and g.name == "params/reconstructor")
    assert (split.split, split.arrays) == ("dimension 1 over fsdp", 8)
    assert split.whole == 2 * split.device == 8 * 256 * 1024 * 4
    assert {group.split for group in found if group.rule == ""} == {"replicated"}


def printed(table):
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    return console.file.getvalue()


def test_tables_name_their_figures():
    sizes = [1, 2, 3, 4, 5, 6, 7, 1]
    memory = Memory(*(size * MIB for size in sizes), count=42, resident=True)
    text = printed(dry_run.memory_table(memory))
    assert "42 images: resident" in text and "28.000" in text
    hidden = Memory(*(size * MIB for size in sizes), count=None, resident=True)
    assert "until the data set is prepared" in printed(dry_run.memory_table(hidden))
    sums = [Collective("all-reduce", (("f32", (1024,)),), 8, name) for name in ("", "f/while/g")]
    text = printed(dry_run.sending_table(sums))
    assert text.count("7.0") == 2 and "all-reduce in a loop, per turn" in text
    assert "nothing" in printed(dry_run.sending_table([]))


def test_images_of_an_unprepared_data_set_are_not_known(tmp_path):
    raw = load_config("quickstart.py")
    raw.data.data_dir = str(tmp_path)
    assert image_count(parse(raw)) is None


def test_width_of_the_text(tmp_path):
    raw = load_config("promptmad_mvtec.py")
    assert text_width(parse(raw).text) == 512
    path = tmp_path / "vectors.npz"
    np.savez(path, phrases=np.array(["a"]), vectors=np.zeros((1, 24), np.float32))
    raw.text.update(source="vectors", weights=str(path))
    assert text_width(parse(raw).text) == 24
    raw.text.update(source="random", width=32)
    assert text_width(parse(raw).text) == 32


@pytest.mark.parametrize("name", ["gpu", "cpu:", "cpu:0", "cpu:many", "tpu:"])
def test_devices_that_cannot_be(name):
    with pytest.raises(UserError, match="it must be cpu:NUMBER or tpu:SLICE"):
        dry_run.find_devices(name)
