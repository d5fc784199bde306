"""PromptMAD (or, with `:onenip`, OneNIP) on your own folder in MVTec layout.

    python -m promptmad_jax.prepare --dataset=anomaly_folder --source=FOLDER --data_dir=data
    python -m promptmad_jax.train --config=configs/promptmad_folder.py --workdir=runs/mine \
        --config.backbone.weights=efficientnetv2_b0.npz

Describe your classes in a YAML file (`config.text.vocabulary`) and take CLIP's text encoder
(`config.text.source=clip`) where you can; the default needs no download.
"""

from configs import common


def get_config(arg=None):
    arg = common.parse_arg(arg, onenip=False)
    config = common.defaults()
    config.name = "onenip_folder" if arg.onenip else "promptmad_folder"
    config.model = "onenip" if arg.onenip else "promptmad"
    config.data.dataset = "anomaly_folder"
    config.backbone.name = "efficientnetv2_b0"
    config.text.source = "random"
    config.loss.focal = 0.0 if arg.onenip else 1.0
    config.train.steps = 20_000
    config.train.seed = arg.seed
    if arg.smoke:
        common.shrink(config)
    return config
