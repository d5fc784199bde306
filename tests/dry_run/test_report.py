"""The dry run: where the state lies, what is counted, what is refused."""

import importlib.util
import io
import re

import numpy as np
import pytest
from rich.console import Console

from promptmad_jax.config import parse
from promptmad_jax.dry_run import report as dry_run
from promptmad_jax.dry_run.collectives import Collective
from promptmad_jax.dry_run.estimate import Estimate
from promptmad_jax.dry_run.programs import Compiled
from promptmad_jax.dry_run.state import image_count, state_groups
from promptmad_jax.dry_run.targets import CHIPS, find_target
from promptmad_jax.methods.method import open_method
from promptmad_jax.methods.reconstruction.abstract import abstract_training, text_width
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.mesh import abstract_mesh, make_mesh, partition_rules
from tests.trees import count_params

GIB = 2**30


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


def test_what_is_printed_of_a_program():
    sums = [Collective("all-reduce", (("f32", (1024,)),), 8, name) for name in ("", "f/while/g")]
    estimate = Estimate(0.002, 31, {"models/x.py:3": 0.0015, "": 0.0005})
    compiled = Compiled("step", 64, 12.3, 4567, 2 * GIB, 15 * GIB, sums, estimate)
    console = Console(file=io.StringIO(), width=120)
    dry_run.print_program(compiled, CHIPS["v5e"], console)
    text = console.file.getvalue()
    assert "step: 64 images; compiled in 12 s, 4,567 lines" in text
    assert "17.00 GiB, does not fit 16 GiB (arguments 2.00, temporaries and results 15.00)" in text
    assert "2.00 ms, 32,000 images/s, 31 kernels; left out: single-element" in text
    assert text.count(" 7.0 ") == 2 and "all-reduce in a loop, per turn" in text
    assert "models/x.py:3" in text and "75.0" in text and "no line of the project" in text


def test_programs_are_compiled_for_cpus(capsys):
    raw = load_config("quickstart.py:smoke")
    dry_run.print_report(parse(raw), "", ("batch", "inference"))
    text = capsys.readouterr().out
    assert "8 x cpu, data=8 fsdp=1; 8 images per step, 1 per device" in text
    assert "batch: 8 images" in text and "inference: 8 images" in text and "step:" not in text
    with pytest.raises(UserError, match="--programs=maps: it must be some of batch, inference"):
        dry_run.dry_run(parse(raw), "", ("maps",))


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


@pytest.mark.parametrize(
    "name", ["gpu", "cpu:", "cpu:0", "cpu:many", "cpu:2x4", "v5e:0x1", "h200:"]
)
def test_devices_that_cannot_be(name):
    with pytest.raises(UserError, match="it must be cpu:8, a TPU slice as v5e:2x4"):
        find_target(name)


@pytest.mark.parametrize(("name", "extra"), [("v5e:2x4", "tpu"), ("h200:1x8", "cuda")])
def test_a_compiler_that_is_not_installed(name, extra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=re.escape(f"pip install 'promptmad_jax[{extra}]'")):
        find_target(name)


def test_the_programs_of_a_zero_shot_run_are_traced():
    config = parse(load_config("dapo_mvtec_to_visa.py:smoke"))
    run = open_method(config).abstract_training(make_mesh(config.mesh), "cpu")
    size, batch = config.dapo.image_size, config.train.batch_size
    cut = run.trace_batch(40).lower().out_info
    assert cut.type_masks.shape == (batch, size, size)
    maps = run.trace_inference().lower().out_info
    assert maps["anomaly"].shape[1:] == (size, size)
    _, metrics = run.trace().lower().out_info
    assert metrics["loss"].shape == ()
