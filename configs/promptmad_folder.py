"""PromptMAD, or with `:onenip` or `:uniad` a baseline, on your own folder in MVTec layout.

    promptmad prepare --dataset=anomaly_folder --source=FOLDER --data_dir=data
    promptmad train --config=promptmad_folder.py --workdir=runs/mine \\
        --config.backbone.weights=efficientnetv2_b0.npz

PromptMAD starts from a memory of normal patches and reads no words; docs/your_data.md says how to
add them. `--config.train.steps=0` leaves the memory alone. `:backbone=dinov2_vitb14` takes DINOv2's
features, which are a download, at 448 px; `:backbone=efficientnetv2_nano` needs no download.
"""

from promptmad_jax.configs import common


def get_config(arg=None):
    arg = common.parse_arg(arg, onenip=False, uniad=False, backbone="")
    config = common.defaults()
    config.model = "uniad" if arg.uniad else "onenip" if arg.onenip else "promptmad"
    config.name = f"{config.model}_folder"
    config.data.update(dataset="anomaly_folder", holdout=0.1)
    config.backbone.name = "efficientnetv2_b0"
    common.use_backbone(config, arg.backbone)
    config.text.source = "random"
    config.loss.focal = 1.0 if config.model == "promptmad" else 0.0
    if arg.uniad:
        config.reconstructor.neighbor_size = 7
        config.eval.fusion = "reconstruction"
    if config.model == "promptmad":
        common.use_memory(config)
    config.train.steps = 1500 if config.model == "promptmad" else 20_000
    config.train.seed = arg.seed
    if arg.smoke:
        common.shrink(config)
    return config
