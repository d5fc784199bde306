"""Training steps on one device and on eight."""

import jax
import numpy as np

from promptmad_jax.config import parse
from promptmad_jax.data.pipeline import TrainBatch
from promptmad_jax.dry_run.collectives import find_collectives
from promptmad_jax.methods.reconstruction.assembly import make_detector
from promptmad_jax.models.backbone.backbone import load_backbone
from promptmad_jax.models.layers.attention import Text
from promptmad_jax.models.reconstruction.detector import Frozen
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.runtime.mesh import (
    MeshConfig,
    batch_sharding,
    make_mesh,
    partition_rules,
    replicated,
)
from promptmad_jax.training.memory import make_memory
from promptmad_jax.training.optimizer import make_optimizer
from promptmad_jax.training.reconstruction_step import Clean, make_train_step, restore
from promptmad_jax.training.state import create_state

STEPS, BATCH, SIDE = 2, 8, 64
FSDP = (("(lin1|query|key|value|input_proj)/kernel$", ("", "fsdp")),)


def inputs_of(detector, params):
    """Frozen arrays and a batch of two classes, which the memory is made of."""
    rng = np.random.default_rng(0)
    images, textures = rng.integers(0, 256, (2, BATCH, SIDE, SIDE, 3), np.uint8)
    text = Text(rng.normal(size=(2, 3, 12)).astype(np.float32), np.ones((2, 3), bool))
    frozen = Frozen(params, text)
    features = jax.jit(detector.features)(frozen, images)
    ids, nearest = np.arange(BATCH, dtype=np.int32), None
    if detector.memory is not None:
        made = make_memory(np.asarray(features.patches), ids % 2, ("a", "b"), detector.memory)
        frozen, nearest = frozen._replace(memory=made.memory), made.nearest
    clean, prompt = Clean(features, nearest), features.neck[::-1]
    return frozen, TrainBatch(ids, images, textures, ids % 2, clean, prompt)


def train(mesh_config, name):
    """Metrics of each step, and what the compiled step sends."""
    config = parse(load_config(name))
    mesh = make_mesh(mesh_config)
    backbone, params = load_backbone(config.backbone)
    text = Text(jax.ShapeDtypeStruct((2, 3, 12), np.float32), None)
    detector = make_detector(config, backbone, text)
    frozen, batch = inputs_of(detector, params)
    batch = jax.device_put(batch, batch_sharding(mesh))
    optimizer = make_optimizer(config.optimizer, STEPS, STEPS)
    rules = partition_rules(mesh_config)
    state, shardings = create_state(detector.network, optimizer.tx, 0, mesh, rules)
    ignored = np.arange(2 * SIDE * SIDE).reshape(2, SIDE, SIDE) < SIDE
    losses = config.pseudo_anomaly, config.loss
    step = make_train_step(detector, optimizer, *losses, mesh, shardings, ignored)
    frozen, history = jax.device_put(frozen, replicated(mesh)), []
    compiled = step.lower(state, frozen, batch).compile()
    for _ in range(STEPS):
        state, metrics = compiled(state, frozen, batch)
        history.append({name: float(value) for name, value in metrics.items()})
    return history, find_collectives(compiled.as_text())


def test_no_pseudo_anomaly_is_left_where_pixels_do_not_count():
    where = np.array([[[True, False]], [[False, False]]])
    pseudo, masks = restore(
        np.full((2, 1, 2, 3), 7, np.uint8), np.ones((2, 1, 2, 3)), np.ones((2, 1, 2)), where
    )
    np.testing.assert_array_equal(pseudo, np.where(where[..., None], 7, 1) + np.zeros(3))
    np.testing.assert_array_equal(masks, ~where)


def test_eight_devices_search_a_memory_without_sending_a_batch():
    name = "quickstart.py:smoke"
    (single, _), (sharded, sent) = train(MeshConfig(1, 1), name), train(MeshConfig(8, 1), name)
    assert {one.kind for one in sent} == {"all-reduce"} and not any(one.in_loop for one in sent)
    assert single[0]["focal"] > 0
    for one, eight in zip(single, sharded, strict=True):
        np.testing.assert_allclose(eight["loss"], one["loss"], rtol=2e-3)


def test_a_transformer_as_backbone():
    """One grid of tokens: no laterals, and the memory's patches are the tokens."""
    history, _ = train(MeshConfig(1, 1), "promptmad_mvtec.py:memory,backbone=dinov3_vits16,smoke")
    assert all(np.isfinite(value) for value in history[-1].values()) and history[0]["dice"] > 0


def test_eight_devices_agree_with_one():
    """Losses and gradients are sums over the batch: eight partial sums round otherwise than one.
    AdamW's first steps divide each gradient by its own size, so that where it is almost zero the
    rounding decides its sign: parameters drift apart by the learning rate, losses hardly.

    The split parameters are gathered where they are used; nothing with a batch axis is sent."""
    name = "quickstart.py:smoke,onenip"
    (single, nothing), (sharded, sent) = (
        train(mesh, name) for mesh in (MeshConfig(1, 1), MeshConfig(4, 2, FSDP))
    )
    assert not nothing and not any(one.in_loop for one in sent)
    assert {one.kind for one in sent} == {"all-reduce", "all-gather"}
    gathered = {(one.shapes, one.devices) for one in sent if one.kind == "all-gather"}
    assert gathered == {((("f32", shape),), 2) for shape in ((32, 32), (32, 64), (160, 32))}
    for name, value in single[0].items():
        np.testing.assert_allclose(sharded[0][name], value, rtol=2e-5, atol=1e-7, err_msg=name)
    for one, eight in zip(single[1:], sharded[1:], strict=True):
        np.testing.assert_allclose(eight["loss"], one["loss"], rtol=2e-3)
