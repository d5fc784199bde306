"""CLIP with hand-written phrases, untrained: the baseline of the zero-shot detectors.

    promptmad prepare --dataset=mvtec_ad --source=... --data_dir=data
    promptmad train --config=clip_zero_shot.py --workdir=runs/clip_zero_shot
    promptmad predict --config=clip_zero_shot.py --defects="scratch,missing cap" --output=out FOLDER

`train` takes no step and only evaluates. The phrases are WinCLIP's ensemble (arXiv 2303.14814),
without its windows. Not run by this project: CLIP ViT-L/14-336 is a download.
"""

from promptmad_jax.configs import common
from promptmad_jax.configs import zero_shot_common as zero_shot


def get_config(arg=None):
    arg = common.parse_arg(arg)
    config = zero_shot.untrained("mvtec_ad")
    config.train.seed = arg.seed
    if arg.smoke:
        zero_shot.shrink(config)
    return config


def get_hyper():
    """Settings for launch/sweep.py: one run, since nothing is random."""
    return [{}]
