"""Makes the miniature backbone's weights: `python -m promptmad_jax.pretrain --output=FILE.npz`.

Half precision, under the names that `backbone.weights` reads.
"""

from absl import flags

from promptmad_jax.runtime import cli
from promptmad_jax.runtime.errors import UserError

_OUTPUT = flags.DEFINE_string("output", None, "the .npz file to write")
_STEPS = flags.DEFINE_integer("steps", 4000, "training steps", lower_bound=1)
_PER_CLASS = flags.DEFINE_integer("per_class", 300, "pictures a class", lower_bound=2)


def main(argv: list[str]) -> None:
    """Reads the flags, then trains and writes the file."""
    import jax
    import numpy as np

    from promptmad_jax.models.backbone import BackboneConfig, load_backbone
    from promptmad_jax.training.pretraining import PretrainingConfig, pretrain, render_pictures

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
