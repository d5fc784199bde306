"""PromptMAD in miniature on synthetic data: minutes on a CPU, no download.

    bash launch/quickstart.sh

The backbone is a miniature with weights made by tools/pretrain_nano.py. PromptMAD starts from a
memory of normal patches and trains its segmentor alone; `:onenip` trains the baseline, narrower.
It shows that the parts work together, not what the methods can reach.
"""

from promptmad_jax.configs import common


def get_config(arg=None):
    arg = common.parse_arg(arg, onenip=False)
    config = common.defaults()
    config.name = "quickstart"
    config.model = "onenip" if arg.onenip else "promptmad"
    config.data.dataset = "synthetic_mvtec"
    config.data.update(image_size=128, holdout=0.1)
    config.backbone.update(name="efficientnetv2_nano", weights="shipped")
    config.text.source = "random"
    config.reconstructor.update(
        width=128, heads=4, encoder_layers=2, decoder_layers=2, mlp_width=256
    )
    config.refiner.width = 64
    config.loss.update(feature=4.0, focal=0.0 if arg.onenip else 1.0)
    config.segmentor.update(width=64, fine_width=32, denoiser_width=16, denoiser_deep_width=32)
    config.optimizer.update(
        learning_rate=1e-3, schedule="cosine", decay_factor=0.01, warmup_steps=20, clip_norm=5.0
    )
    config.train.update(batch_size=8, steps=900, log_every=50, checkpoint_every=300, seed=arg.seed)
    config.eval.update(batch_size=16, fusion="standardized")
    if not arg.onenip:
        common.use_memory(config)
        config.memory.update(patches=8192, levels=(2, 4, 8), stride=4)
        config.train.steps = 500
    if arg.smoke:
        common.shrink(config)
    return config


def get_hyper():
    """Settings for launch/sweep.py: three seeds."""
    return [{"train.seed": seed} for seed in range(3)]
