"""PromptMAD as in the paper, on the 15 classes of MVTec-AD at 224 px.

    promptmad prepare --dataset=mvtec_ad --data_dir=data \\
        --source=mvtec_anomaly_detection.tar.xz
    promptmad train --config=promptmad_mvtec.py --workdir=runs/promptmad_mvtec

The paper reports 97.62 image AUROC, 98.35 pixel AUROC and 66.54 pixel AP. Not run by this project:
MVTec-AD, EfficientNet-B4's and CLIP's weights are downloads. `:memory` starts from a memory of
normal patches, `:backbone=dinov2_vitb14` takes DINOv2's features at 448 px (docs/weights.md),
`:batch=256` is for large devices (docs/pods.md).
"""

from promptmad_jax.configs import common


def get_config(arg=None):
    arg = common.parse_arg(arg, memory=False, backbone="", batch=0)
    config = common.defaults()
    config.name = "promptmad_mvtec"
    config.data.dataset = "mvtec_ad"
    common.use_backbone(config, arg.backbone or "efficientnet_b4")
    config.text.source = "clip"
    config.text.weights = "openai/clip-vit-base-patch32"
    config.train.seed = arg.seed
    if arg.memory:
        common.use_memory(config)
    common.use_batch(config, arg.batch)
    if arg.smoke:
        common.shrink(config)
    return config


def get_hyper():
    """Settings for launch/sweep.py: three seeds."""
    return [{"train.seed": seed} for seed in range(3)]
