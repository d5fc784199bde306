"""Makes the miniature backbone's weights: it learns a large network's features of drawn pictures.

    python -m tools.pretrain_nano --teacher=WEIGHTS --output=nano.npz

The offline quickstart needs features that tell parts from defects, and no downloaded weights.
Random ones do not. So the miniature network learns to compute those of EfficientNetV2-B0 at the
same strides (knowledge distillation), on procedurally rendered *normal* parts, drawn from another
seed than the data set's, most of them with pseudo-anomalies. No defect of the synthetic data set is
seen. The teacher has more channels, so its principal components are what is learned.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from promptmad_jax.data.preprocess import normalize, resize_image
from promptmad_jax.data.pseudo_anomaly.config import PseudoAnomalyConfig
from promptmad_jax.data.pseudo_anomaly.synthesis import synthesize
from promptmad_jax.data.synthetic.scenes import CLASS_NAMES, GOOD, render_sample
from promptmad_jax.models.backbone.backbone import BackboneConfig, load_backbone
from promptmad_jax.models.backbone.efficientnet_backbone import EfficientNetBackbone
from promptmad_jax.models.functional import Params
from promptmad_jax.runtime import cli
from promptmad_jax.runtime.errors import UserError

_RENDERED_SIZE = 256


@dataclass(frozen=True)
class PretrainingConfig:
    """Attributes:
    image_size: S in training, pixels. per_class: pictures per class.
    picture_seed: of the pictures; the data set's default is 0.
    clean: images of a batch that get no pseudo-anomaly.
    component_batches: batches whose features the principal components are computed from.
    """

    image_size: int = 128
    per_class: int = 300
    picture_seed: int = 1000
    batch_size: int = 16
    clean: int = 4
    component_batches: int = 24
    steps: int = 8000
    learning_rate: float = 3e-3
    seed: int = 0


class Teacher(NamedTuple):
    """A backbone with its parameters."""

    backbone: EfficientNetBackbone
    params: Params


class Components(NamedTuple):
    """Principal components of one of the teacher's levels, C channels, for a student's of D.

    Attributes:
        axes: [C, D]. mean: [1, 1, 1, D], of the features along them. variance: of all D together.
    """

    axes: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def render_pictures(config: PretrainingConfig) -> np.ndarray:
    """Normal pictures uint8 [N, S, S, 3] of all synthetic classes."""
    jobs = [
        (config.picture_seed, name, index, config.image_size)
        for name in CLASS_NAMES
        for index in range(config.per_class)
    ]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        return np.stack(list(pool.map(_render, jobs, chunksize=16)))


def _render(job: tuple[int, str, int, int]) -> np.ndarray:
    seed, name, index, size = job
    return resize_image(render_sample(seed, name, "train", GOOD, index, _RENDERED_SIZE)[0], size)


def pretrain(
    backbone: EfficientNetBackbone,
    params: Params,
    teacher: Teacher,
    pictures: np.ndarray,
    config: PretrainingConfig,
    report: Callable[[int, list[float]], None],
) -> Params:
    """Trains `params` of the backbone and returns them.

    Its levels become the teacher's principal components, all divided by one number, so that the
    channels of the second level vary by 1 in the mean. The first level ends in an activation, as
    the teacher's does, and becomes its channels.

    Args:
        params: of the backbone, at the start.
        pictures: uint8 [N, S, S, 3].
        report: gets the number of the step and, for each level, the error's share of the variance,
            the mean of the last 100 steps.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    components = _components(backbone.channels, teacher, pictures, config)
    weights = jax.tree.map(jnp.copy, params)  # a step donates them
    warmup, rate = min(200, config.steps // 4), config.learning_rate
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, warmup, config.steps, rate / 100)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-5))
    step = jax.jit(_make_step(backbone, teacher, components, tx, config), donate_argnums=(0, 1))
    opt_state, window = tx.init(weights), []
    for number, batch in enumerate(_batches(pictures, config, config.steps), 1):
        weights, opt_state, errors = step(weights, opt_state, teacher.params, *batch)
        window.append(errors)
        if number % 100 == 0 or number == config.steps:
            means, window = np.mean(jax.device_get(window), 0), []
            if not np.isfinite(means).all():
                raise FloatingPointError(f"pretraining: the loss is not finite at step {number}")
            report(number, means.tolist())
    return weights


def _batches(
    pictures: np.ndarray, config: PretrainingConfig, number: int
) -> Iterator[tuple[np.ndarray, np.ndarray, jax.Array]]:
    """Pictures, textures for their pseudo-anomalies, and a key."""
    rng, key = np.random.default_rng(config.seed), jax.random.key(config.seed)
    for index in range(number):
        rows, textures = rng.integers(len(pictures), size=(2, config.batch_size))
        yield pictures[rows], pictures[textures], jax.random.fold_in(key, index)


def _altered(
    images: jax.Array, textures: jax.Array, key: jax.Array, config: PretrainingConfig
) -> jax.Array:
    """Turned and tinted images, most with a pseudo-anomaly, normalized for a backbone."""
    keys = jax.random.split(key, 2 * len(images))
    images = jax.vmap(_augment)(keys[: len(images)], images)
    clean = config.clean
    damaged, _ = synthesize(
        keys[len(images) + clean :], images[clean:], textures[clean:], PseudoAnomalyConfig()
    )
    return normalize(jnp.concatenate([images[:clean], damaged]))


def _augment(key: jax.Array, image: jax.Array) -> jax.Array:
    flip, turn, tint, gain, lift = jax.random.split(key, 5)
    image = image.astype(jnp.float32)
    image = jnp.where(jax.random.bernoulli(flip), image[:, ::-1], image)
    image = jnp.where(jax.random.bernoulli(turn), image.transpose(1, 0, 2), image)
    gains = jax.random.uniform(tint, (1, 1, 3), minval=-0.15, maxval=0.15)
    gains += jax.random.uniform(gain, minval=-0.25, maxval=0.25)
    lifted = image * jnp.exp(gains) + jax.random.uniform(lift, minval=-15, maxval=15)
    return jnp.round(jnp.clip(lifted, 0, 255)).astype(jnp.uint8)


def principal_components(mean: np.ndarray, square: np.ndarray, count: int) -> Components:
    """The `count` components that explain the most variance.

    Args:
        mean, square: of rows x [C], the means of x and of its outer product with itself, [C, C].
    """
    variances, axes = np.linalg.eigh(square - np.outer(mean, mean))
    axes, variances = axes[:, ::-1][:, :count], variances[::-1][:count]
    return Components(axes, (mean @ axes).reshape(1, 1, 1, -1), variances.sum())


def _components(
    channels: tuple[int, ...], teacher: Teacher, pictures: np.ndarray, config: PretrainingConfig
) -> list[Components]:
    """Of the teacher's levels, as many as a student has channels, and of one scale."""

    @jax.jit
    def moments(params, images, textures, key):
        levels = teacher.backbone(params, _altered(images, textures, key, config))
        rows = [level.reshape(-1, level.shape[-1]) for level in levels]
        return [(x.mean(0), x.T @ x / len(x)) for x in rows]

    batches = _batches(pictures, config, config.component_batches)
    sums = [jax.device_get(moments(teacher.params, *batch)) for batch in batches]
    means = [
        [np.mean(x, 0, np.float64) for x in zip(*level, strict=True)]
        for level in zip(*sums, strict=True)
    ]
    found = [principal_components(*m, d) for m, d in zip(means, channels, strict=True)]
    # The first level is positive, for the most part, and is learned channel by channel.
    mean, square = means[0]
    variance = (np.diag(square) - mean**2)[: channels[0]].sum()
    found[0] = Components(np.eye(len(mean), channels[0]), np.zeros((1, 1, 1, 1)), variance)
    scale = np.sqrt(channels[1] / found[1].variance)
    return [
        Components(*map(np.float32, (scale * axes, scale * mean, scale**2 * variance)))
        for axes, mean, variance in found
    ]


def _make_step(
    backbone: EfficientNetBackbone,
    teacher: Teacher,
    components: list[Components],
    tx: optax.GradientTransformation,
    config: PretrainingConfig,
) -> Callable[..., Any]:
    def loss_fn(weights, images, targets):
        levels = backbone(weights, images)
        errors = jnp.stack(
            [
                jnp.square(level - target).sum(-1).mean() / component.variance
                for level, target, component in zip(levels, targets, components, strict=True)
            ]
        )
        return errors.sum(), errors

    def step(weights, opt_state, params, images, textures, key):
        images = _altered(images, textures, key, config)
        levels = teacher.backbone(params, images)
        targets = [x @ axes - mean for x, (axes, mean, _) in zip(levels, components, strict=True)]
        grads, errors = jax.grad(loss_fn, has_aux=True)(weights, images, targets)
        updates, opt_state = tx.update(grads, opt_state, weights)
        return optax.apply_updates(weights, updates), opt_state, errors

    return step


_TEACHER = flags.DEFINE_string(
    "teacher", "timm/tf_efficientnetv2_b0.in1k", "EfficientNetV2-B0's weights, see docs/weights.md"
)
_OUTPUT = flags.DEFINE_string("output", None, "the .npz file to write")
_STEPS = flags.DEFINE_integer("steps", 8000, "training steps", lower_bound=1)
_PER_CLASS = flags.DEFINE_integer("per_class", 300, "pictures per class", lower_bound=2)


def main(argv: list[str]) -> None:
    """Reads the flags, then trains and writes the file."""
    del argv
    config = PretrainingConfig(steps=_STEPS.value, per_class=_PER_CLASS.value)
    teacher = Teacher(*load_backbone(BackboneConfig("efficientnetv2_b0", _TEACHER.value)))
    backbone, params = load_backbone(BackboneConfig("efficientnetv2_nano", "random"))
    show = lambda step, errors: print(step, np.round(errors, 3), flush=True)
    params = pretrain(backbone, params, teacher, render_pictures(config), config, show)
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
