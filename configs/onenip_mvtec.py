"""OneNIP, the baseline that PromptMAD extends, on the 15 classes of MVTec-AD at 224 px.

    promptmad prepare --dataset=mvtec_ad --data_dir=data \\
        --source=mvtec_anomaly_detection.tar.xz
    promptmad train --config=onenip_mvtec.py --workdir=runs/onenip_mvtec

Its released model scores 97.96 image AUROC, 97.91 pixel AUROC and 63.87 pixel AP. Not run by this
project: MVTec-AD and EfficientNet-B4's weights are downloads.
"""

from promptmad_jax.configs import common


def get_config(arg=None):
    arg = common.parse_arg(arg, backbone="", batch=0)
    config = common.defaults()
    config.name = "onenip_mvtec"
    config.model = "onenip"
    config.data.dataset = "mvtec_ad"
    common.use_backbone(config, arg.backbone or "efficientnet_b4")
    config.loss.focal = 0.0
    common.use_batch(config, arg.batch)
    config.train.seed = arg.seed
    if arg.smoke:
        common.shrink(config)
    return config
