"""CLIP as it is, with hand-written phrases: the floor of the zero-shot detectors. Trains nothing.

    python -m promptmad_jax.prepare --dataset=mvtec_ad --source=... --data_dir=data
    python -m promptmad_jax.train --config=configs/clip_zero_shot.py --workdir=runs/clip_zero_shot
    python -m promptmad_jax.predict --config=configs/clip_zero_shot.py --output=out \\
        --defects="scratch,missing cap" FOLDER

`train` has no step to make: it goes on to the evaluation. WinCLIP's ensemble of phrases
(arXiv 2303.14814) without its windows. Not run by this project: CLIP ViT-L/14-336 is a download.
"""

from configs import common
from configs import zero_shot_common as zero_shot


def get_config(arg=None):
    arg = common.parse_arg(arg)
    config = zero_shot.untrained("mvtec_ad")
    config.train.seed = arg.seed
    if arg.smoke:
        zero_shot.shrink(config)
    return config


def get_hyper():
    """Settings for launch/sweep.py: nothing is drawn, so one run."""
    return [{}]
