"""The narrow networks of dino.npz, and the sizes of their images."""

from promptmad_jax.models.backbone.vit import ViTArchitecture

NETS = {
    net.name: net
    for net in (
        ViTArchitecture("dinov2", 14, 8, 2, 2, 32, positions=4),
        ViTArchitecture("dinov2_reg", 14, 8, 2, 2, 24, 2, True, positions=4),
        ViTArchitecture("dinov3", 16, 8, 2, 2, 12, 2, False, 0, False, 1e-5),
        ViTArchitecture("dinov3_gated", 16, 8, 2, 2, 16, 2, True, 0, False, 1e-5),
    )
}
SIZES = {"native": (4, 4), "wide": (3, 6)}  # in patches
