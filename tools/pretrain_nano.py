"""Makes the miniature backbone's weights from the project's own procedural pictures.

The offline quickstart needs features that tell parts from defects, and no downloaded weights.
Random ones do not. So the miniature network is trained end to end to find pseudo-anomalies on
procedurally rendered *normal* parts, drawn from another seed than the data set's, with a small
head that is thrown away. No defect of the synthetic data set is seen. At the end the levels are
brought to one scale, for a reconstruction error that hears all of them.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from multiprocessing import get_context
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from flax import nnx

from promptmad_jax.data.preprocess import normalize, resize_image
from promptmad_jax.data.pseudo_anomaly.config import PseudoAnomalyConfig
from promptmad_jax.data.pseudo_anomaly.synthesis import synthesize
from promptmad_jax.data.synthetic.scenes import CLASS_NAMES, GOOD, render_sample
from promptmad_jax.losses.segmentation import dice_loss, focal_loss, per_positive
from promptmad_jax.models.backbone.efficientnet import Architecture, Block
from promptmad_jax.models.backbone.efficientnet_backbone import EfficientNetBackbone
from promptmad_jax.models.functional import Network, Params
from promptmad_jax.models.layers.basic import conv, linear
from promptmad_jax.models.layers.resize import resize_align_corners
from promptmad_jax.runtime import cli
from promptmad_jax.runtime.errors import UserError

_RENDERED_SIZE = 256


@dataclass(frozen=True)
class PretrainingConfig:
    """Attributes:
    image_size: S in training, pixels. per_class: pictures a class.
    picture_seed: of the pictures; the data set's default is 0.
    clean: unchanged images in a batch, beside `batch_size` pseudo-anomalous ones.
    width: channels of the head.
    """

    image_size: int = 128
    per_class: int = 300
    picture_seed: int = 1000
    batch_size: int = 12
    clean: int = 4
    steps: int = 4000
    learning_rate: float = 1.5e-3
    width: int = 48
    seed: int = 0


class Head(nnx.Module):
    """Sums 1x1 projections of all levels at stride 4, one 3x3 convolution, a logit; and classes."""

    def __init__(self, channels: tuple[int, ...], width: int, rngs: nnx.Rngs):
        self.laterals = nnx.Dict(
            {f"level_{i}": linear(c, width, rngs) for i, c in enumerate(channels)}
        )
        self.conv, self.predictor = conv(width, width, rngs), linear(width, 1, rngs)
        self.predictor.bias[...] = jnp.full(1, -3.0, jnp.float32)
        self.classifier = linear(channels[-1], len(CLASS_NAMES), rngs)

    def __call__(self, levels: tuple[jax.Array, ...], size: int) -> tuple[jax.Array, jax.Array]:
        """Returns the logit [B, size, size] and class logits [B, K]."""
        grid = size // 4
        x = sum(
            resize_align_corners(self.laterals[f"level_{i}"](x), grid, grid)
            for i, x in enumerate(levels)
        )
        x = jax.nn.relu(self.conv(jax.nn.relu(x)))
        logit = resize_align_corners(self.predictor(x)[..., 0], size, size)
        return logit, self.classifier(levels[-1].mean((1, 2)))


def render_pictures(config: PretrainingConfig) -> tuple[np.ndarray, np.ndarray]:
    """Normal pictures uint8 [N, S, S, 3] of all synthetic classes, and class ids int32 [N]."""
    jobs = [
        (config.picture_seed, name, index, config.image_size)
        for name in CLASS_NAMES
        for index in range(config.per_class)
    ]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        pictures = np.stack(list(pool.map(_render, jobs, chunksize=16)))
    return pictures, np.repeat(np.arange(len(CLASS_NAMES), dtype=np.int32), config.per_class)


def _render(job: tuple[int, str, int, int]) -> np.ndarray:
    seed, name, index, size = job
    return resize_image(render_sample(seed, name, "train", GOOD, index, _RENDERED_SIZE)[0], size)


def pretrain(
    backbone: EfficientNetBackbone,
    params: Params,
    pictures: np.ndarray,
    class_ids: np.ndarray,
    config: PretrainingConfig,
    report: Callable[[int, dict[str, float]], None],
) -> Params:
    """Trains `params` of the backbone and returns them, levels balanced.

    Args:
        pictures, class_ids: as `render_pictures` returns them.
        report: gets the number of the step and the means of the last 100 steps.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    head = Network.create(lambda rngs: Head(backbone.channels, config.width, rngs))
    weights = {"backbone": params, "head": head.init(jax.random.key(config.seed))[0]}
    weights = jax.tree.map(jnp.copy, weights)  # a step donates them
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        config.learning_rate,
        min(200, config.steps // 4),
        config.steps,
        config.learning_rate / 100,
    )
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-4))
    step = jax.jit(_make_step(backbone, head, tx, config), donate_argnums=(0, 1))
    opt_state, window = tx.init(weights), []
    for number, (rows, textures) in enumerate(_draws(len(pictures), config), 1):
        key = jax.random.fold_in(jax.random.key(config.seed), number)
        weights, opt_state, terms = step(
            weights, opt_state, pictures[rows], pictures[textures], class_ids[rows], key
        )
        window.append(terms)
        if number % 100 == 0 or number == config.steps:
            rows_of_terms, window = jax.device_get(window), []
            means = {name: float(np.mean([row[name] for row in rows_of_terms])) for name in terms}
            if not np.isfinite(sum(means.values())):
                raise FloatingPointError(f"pretraining: the loss is not finite at step {number}")
            report(number, means)
    deviations = _deviations(backbone, weights["backbone"], pictures)
    return balance_levels(backbone.architecture, weights["backbone"], deviations)


def _deviations(
    backbone: EfficientNetBackbone, params: Params, pictures: np.ndarray
) -> list[np.ndarray]:
    """Standard deviation of every channel of the levels on up to 128 of the pictures."""
    shown = pictures[:: -(-len(pictures) // 128)]
    levels = jax.jit(lambda params, x: backbone(params, normalize(x)))(params, shown)
    found = [np.asarray(level.std((0, 1, 2))) for level in levels]
    # A dead channel is not to be divided by zero.
    return [np.maximum(std, 1e-3 * std.max()) for std in found]


def _draws(count: int, config: PretrainingConfig) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(config.seed)
    for _ in range(config.steps):
        yield (
            rng.integers(count, size=config.batch_size),
            rng.integers(count, size=config.batch_size),
        )


def _make_step(
    backbone: EfficientNetBackbone,
    head: Network,
    tx: optax.GradientTransformation,
    config: PretrainingConfig,
) -> Callable[..., Any]:
    pseudo = PseudoAnomalyConfig()

    def loss_fn(weights, images, masks, class_ids):
        levels = backbone(weights["backbone"], normalize(images))
        logit, classes = head.bind(weights["head"], {})(levels, config.image_size)
        terms = {
            "focal": per_positive(focal_loss(logit, masks, 0.25, 2.0), masks),
            "dice": dice_loss(logit, masks, factor=2.0).mean(),
            "class": optax.softmax_cross_entropy_with_integer_labels(classes, class_ids).mean(),
        }
        return terms["focal"] + 0.5 * terms["dice"] + 0.1 * terms["class"], terms

    def step(weights, opt_state, images, textures, class_ids, key):
        damaged, masks = synthesize(jax.random.split(key, len(images)), images, textures, pseudo)
        first = slice(config.clean)
        images = jnp.concatenate([images[first].astype(jnp.float32), damaged])
        masks = jnp.concatenate([jnp.zeros_like(masks[first]), masks])
        class_ids = jnp.concatenate([class_ids[first], class_ids])
        grads, terms = jax.grad(loss_fn, has_aux=True)(weights, images, masks, class_ids)
        updates, opt_state = tx.update(grads, opt_state, weights)
        return optax.apply_updates(weights, updates), opt_state, terms

    return step


def balance_levels(
    architecture: Architecture, params: Params, deviations: Sequence[np.ndarray]
) -> Params:
    """Divides the channels of the taps by `deviations`.

    An error of reconstruction adds up the channels of all levels, so a level of large values
    silences the others. A stage ends in a linear projection; dividing its channels, and multiplying
    the weights of what reads them, leaves every later activation as it was. A stage that ends in an
    activation (`plain`) cannot be divided so and stays as it is.

    Args:
        params: of the backbone, BatchNorm folded.
        deviations: [C] for each tap, all positive.

    Raises:
        ValueError: a block reads its input without an expansion, as EfficientNet-B4's first do.
    """
    for block in architecture.blocks:
        if block.kind == "mbconv" and block.expanded == block.inputs:
            raise ValueError(f"{architecture.name}: {block.name} does not expand its input")
    params = jax.tree.map(np.asarray, params)
    remaining = iter(deviations)
    for stage, following in _stages(architecture):
        if not stage[-1].tapped:
            continue
        deviation = np.asarray(next(remaining))
        if stage[0].kind == "plain":
            continue
        for block in stage:
            project = params[block.name]["project"]
            project["kernel"] = project["kernel"] / deviation
            project["bias"] = project["bias"] / deviation
        for reader in (*stage[1:], *following[:1]):
            expand = params[reader.name]["expand"]
            expand["kernel"] = expand["kernel"] * deviation[:, None]
    return params


def _stages(architecture: Architecture) -> Iterator[tuple[list[Block], list[Block]]]:
    """Each stage's blocks, and those of the next one."""
    stages = [
        list(blocks) for _, blocks in groupby(architecture.blocks, lambda block: block.name[:-1])
    ]
    yield from zip(stages, [*stages[1:], []], strict=True)


_OUTPUT = flags.DEFINE_string("output", None, "the .npz file to write")


_STEPS = flags.DEFINE_integer("steps", 4000, "training steps", lower_bound=1)


_PER_CLASS = flags.DEFINE_integer("per_class", 300, "pictures a class", lower_bound=2)


def main(argv: list[str]) -> None:
    """Reads the flags, then trains and writes the file."""
    import jax
    import numpy as np

    from promptmad_jax.models.backbone.backbone import BackboneConfig, load_backbone

    del argv
    config = PretrainingConfig(steps=_STEPS.value, per_class=_PER_CLASS.value)
    backbone, params = load_backbone(BackboneConfig("efficientnetv2_nano", "random"))
    show = lambda step, terms: print(step, {k: round(v, 4) for k, v in terms.items()}, flush=True)
    params = pretrain(backbone, params, *render_pictures(config), config, show)
    flat = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(x, np.float16)
        for path, x in jax.tree_util.tree_leaves_with_path(params)
    }
    broken = [name for name, x in flat.items() if not np.isfinite(x).all()]
    if broken:
        raise UserError(
            f"{', '.join(broken)}: not finite in half precision, so that {_OUTPUT.value} is not "
            "written; give other --steps or --per_class"
        )
    np.savez(_OUTPUT.value, **flat)
    print(f"written to {_OUTPUT.value}")


if __name__ == "__main__":
    flags.mark_flag_as_required("output")
    cli.run(main)
