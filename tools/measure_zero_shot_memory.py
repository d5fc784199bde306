"""Prints what DAPO and MultiADS hold at ViT-L/14-336 and 518 px, one JSON line a program.

    PYTHONPATH=. python tools/measure_zero_shot_memory.py [--programs=train,inference] [--batch=8]

From XLA's memory analysis of the compiled programs on shapes alone: nothing runs, no weights are
needed. Compiled for this machine's platform, on a CPU with the order of operations that saves
memory, as accelerators have it; others take other temporaries. `arguments_gib` has CLIP's weights,
the trained state and the batch; `temporaries_gib` what is needed on top; `tera_operations` are
those of XLA's cost analysis.
"""

import dataclasses
import json
import os
import time

# The CPU's own order is for speed, and undoes what `remat` saves.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_enable_concurrency_optimized_scheduler=false")

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from promptmad_jax.clip.config import ClipConfig, ClipTextConfig, ClipVisionConfig
from promptmad_jax.clip.text import ClipText
from promptmad_jax.clip.transformer import graph_and_shapes
from promptmad_jax.clip.vision import ClipVision
from promptmad_jax.config import parse
from promptmad_jax.data.defect_types.images import DefectTypeExamples
from promptmad_jax.models.zero_shot.detector import FrozenClip, TrainableParts, ZeroShotDetector
from promptmad_jax.models.zero_shot.parameters import TableMoments
from promptmad_jax.models.zero_shot.prompts import PromptTokens
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.runtime.mesh import MeshConfig, make_mesh
from promptmad_jax.training.optimizer import make_optimizer
from promptmad_jax.training.state import state_shapes
from promptmad_jax.training.zero_shot_step import FrozenZeroShot, make_zero_shot_step

_BATCH = flags.DEFINE_integer("batch", 8, "images")
_TYPES = flags.DEFINE_integer("types", 18, "K, of VisA")
_PROGRAMS = flags.DEFINE_list("programs", [], "of those below; all where empty")

LARGE = ClipConfig(
    ClipTextConfig(width=768, hidden=3072, heads=12, projection=768),
    ClipVisionConfig(
        width=1024, hidden=4096, heads=16, layers=24, projection=768, image=336, patch=14
    ),
)
PROGRAMS = {
    "train": ("dapo", {}),
    "train_remat": ("dapo", {"remat": True}),
    "train_bfloat16": ("dapo", {"dtype": "bfloat16"}),
    "train_bfloat16_remat": ("dapo", {"dtype": "bfloat16", "remat": True}),
    "train_cached": ("dapo", {"image_tokens": 0}),
    "train_multiads_cached": ("multiads", {}),
    "inference": ("dapo", {}),
    "inference_bfloat16": ("dapo", {"dtype": "bfloat16"}),
}


def frozen_shapes(dtype):
    text = graph_and_shapes(ClipText, LARGE.text)[1]
    vision = graph_and_shapes(ClipVision, LARGE.vision)[1]
    cast = lambda x: jax.ShapeDtypeStruct(x.shape, dtype)
    return FrozenClip(text, jax.tree.map(cast, vision))


def lower(method, changes, inference):
    """The lowered program."""
    config = parse(load_config(f"{method}_visa_to_mvtec.py"))
    dapo = dataclasses.replace(config.dapo, **changes)
    detector = ZeroShotDetector.create(dapo, LARGE)
    frozen = frozen_shapes(jnp.dtype(dapo.dtype))
    width, size, count = LARGE.text.width, dapo.image_size, _BATCH.value
    moments = TableMoments(np.zeros(width, np.float32), np.ones(width, np.float32))
    mesh = make_mesh(MeshConfig(data=1))
    optimizer = make_optimizer(config.optimizer)
    state = state_shapes(TrainableParts(dapo, LARGE, moments), optimizer.tx, mesh)
    shape = jax.ShapeDtypeStruct
    images = shape((count, size, size, 3), jnp.uint8)
    states = shape((_TYPES.value + 1, LARGE.text.projection), jnp.float32)
    if inference:
        return jax.jit(detector.maps).lower(state.params, frozen, states, images)
    cached = None
    if not dapo.image_tokens:
        run = lambda clip, x: detector.image_states({}, clip, x)
        cached = jax.eval_shape(run, frozen, images)
        cached = cached._replace(taps=tuple(shape(t.shape, jnp.bfloat16) for t in cached.taps))
        images = None
    ids = shape((_TYPES.value + 1, 16), jnp.int32)
    tokens = PromptTokens(ids, shape((_TYPES.value + 1,), jnp.int32), None)
    text = tokens if dapo.learns_text else states
    masks = shape((count, size, size), jnp.uint8)
    batch = DefectTypeExamples(images, cached, masks, shape((count,), bool))
    shardings = jax.tree.map(lambda x: x.sharding, state)
    step = make_zero_shot_step(detector, optimizer, config.type_loss, 0.0, mesh, shardings)
    return step.lower(state, FrozenZeroShot(frozen, text), batch)


def main(argv):
    del argv
    for name in _PROGRAMS.value or PROGRAMS:
        begin = time.perf_counter()
        program = lower(*PROGRAMS[name], name.startswith("inference")).compile()
        memory = program.memory_analysis()
        row = {
            "program": name,
            "batch": _BATCH.value,
            "types": _TYPES.value,
            "platform": jax.default_backend(),
            "arguments_gib": round(memory.argument_size_in_bytes / 2**30, 2),
            "temporaries_gib": round(memory.temp_size_in_bytes / 2**30, 2),
            "tera_operations": round(program.cost_analysis()["flops"] / 1e12, 2),
            "compile_s": round(time.perf_counter() - begin),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    app.run(main)
