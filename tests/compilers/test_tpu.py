"""Programs compiled for TPUs that are not there: what they send, copy and round."""

import importlib.util
import re
import subprocess
import sys

import pytest

from promptmad_jax.dry_run.hlo import CompiledProgram
from promptmad_jax.dry_run.programs import compile_program
from tests.compilers.abstract_runs import run_of

pytestmark = [
    pytest.mark.compilers,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is missing"),
]
# Their products are float32 in full.
EXACT = ("models/layers/resize.py", "models/reconstruction/memory.py")


def test_a_batch_is_cut_without_laying_the_data_set_out_anew():
    config, run, chip = run_of("promptmad_mvtec.py", "v5e:1x1")
    compiled = compile_program("batch", config, run, chip)
    assert compiled.temporaries < 64 * 2**20 < 2**30 < compiled.arguments
    assert compiled.estimate.seconds < 1e-3


def test_resizing_and_distances_are_float32_in_full():
    _, run, _ = run_of("quickstart.py:smoke", "v5e:1x1", eval__batch_size=1)
    program = CompiledProgram(run.trace_inference().lower().compile().as_text())
    instructions = [x for part in program.computations.values() for x in part.values()]
    products = [x for x in instructions if x.opcode in ("dot", "convolution")]
    for file in EXACT:
        own = [one for one in products if file in program.origin(one)]
        assert own, file
        for one in own:
            assert "operand_precision={highest,highest}" in one.text, one.text


def test_a_step_on_a_slice_sums_gradients_and_gathers_nothing():
    config, run, chip = run_of("quickstart.py:smoke", "v5e:2x4")
    compiled = compile_program("step", config, run, chip)
    assert {one.kind for one in compiled.collectives} == {"all-reduce"}
    assert not any(one.in_loop for one in compiled.collectives)


def test_the_code_of_a_program_is_counted():
    command = ("-m", "tools.count_bundles", "--config=quickstart.py:smoke", "--program=inference")
    result = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
    counted = re.search(r"([\d.]+) ms, the longer of code", result.stdout)
    assert float(counted[1]) > 0, result.stdout


@pytest.mark.full
def test_the_full_size_step():
    config, run, chip = run_of("promptmad_mvtec.py", "v5e:2x4", train__batch_size=64)
    compiled = compile_program("step", config, run, chip)
    assert {one.kind for one in compiled.collectives} == {"all-reduce"}
    assert compiled.memory < 4 * 2**30
