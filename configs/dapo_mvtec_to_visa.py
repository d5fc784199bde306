"""DAPO (arXiv 2512.09446): trained on the test split of mvtec_ad, tested on visa.

    promptmad prepare --dataset=mvtec_ad --source=... --data_dir=data
    promptmad prepare --dataset=visa --source=... --data_dir=data
    promptmad train --config=dapo_mvtec_to_visa.py --workdir=runs/dapo

Uses all 73 defect folders of mvtec_ad, as 20 types.
`:cached` trains only text prompts and adapters, and runs the image tower once per image.
Not run by this project: the data sets and CLIP ViT-L/14-336's weights are downloads.
"""

from promptmad_jax.configs import common
from promptmad_jax.configs import zero_shot_common as zero_shot


def get_config(arg=None):
    arg = common.parse_arg(arg, cached=False)
    config = zero_shot.dapo("mvtec_ad", "visa")
    if arg.cached:
        zero_shot.without_image_prompts(config)
    config.train.seed = arg.seed
    if arg.smoke:
        zero_shot.shrink(config)
    return config


def get_hyper():
    """Settings for launch/sweep.py: three seeds."""
    return [{"train.seed": seed} for seed in range(3)]
