"""Programs compiled for an H200 that is not there."""

import importlib.util

import pytest

from promptmad_jax.dry_run.programs import compile_program
from tests.compilers.abstract_runs import run_of

pytestmark = [
    pytest.mark.compilers,
    pytest.mark.skipif(
        importlib.util.find_spec("jax_plugins") is None
        or importlib.util.find_spec("jax_plugins.xla_cuda13") is None,
        reason="XLA's CUDA plugin is missing",
    ),
]


def test_attention_of_inference_is_cudnns():
    config, run, _ = run_of("promptmad_mvtec.py", "h200:1x1")
    text = run.trace_inference().lower().compile().as_text()
    reconstructor = config.reconstructor
    # Each of the encoder, two of the decoder, the last one, and the segmentor's.
    expected = reconstructor.encoder_layers + 2 * reconstructor.decoder_layers + 1
    expected += config.segmentor.attention_layers
    assert text.count('custom_call_target="__cudnn$fmha') == expected


def test_a_step_on_eight_gpus_sums_gradients_and_gathers_nothing():
    config, run, chip = run_of("quickstart.py:smoke", "h200:1x8")
    compiled = compile_program("step", config, run, chip)
    assert {one.kind for one in compiled.collectives} == {"all-reduce"}
    assert compiled.memory < chip.memory
