"""UniAD, the baseline without a prompt, on the 15 classes of MVTec-AD at 224 px.

    promptmad prepare --dataset=mvtec_ad --data_dir=data \\
        --source=mvtec_anomaly_detection.tar.xz
    promptmad train --config=uniad_mvtec.py --workdir=runs/uniad_mvtec

Its authors report 96.7 image AUROC and 96.8 pixel AUROC (97.6 and 97.0 with batch 8 on one device).
Not run by this project: MVTec-AD and EfficientNet-B4's weights are downloads.
"""

from promptmad_jax.configs import common


def get_config(arg=None):
    arg = common.parse_arg(arg, backbone="")
    config = common.defaults()
    config.name = "uniad_mvtec"
    config.model = "uniad"
    config.data.dataset = "mvtec_ad"
    common.use_backbone(config, arg.backbone or "efficientnet_b4")
    # At every image size; OneNIP takes half the grid.
    config.reconstructor.neighbor_size = 7
    config.eval.fusion = "reconstruction"
    config.train.seed = arg.seed
    if arg.smoke:
        common.shrink(config)
    return config
