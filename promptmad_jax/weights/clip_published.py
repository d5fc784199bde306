"""The shapes of OpenAI's CLIP models, for runs planned or timed where their files are not."""

from promptmad_jax.weights.clip_config import ClipConfig, ClipTextConfig, ClipVisionConfig

_LARGE_TEXT = ClipTextConfig(width=768, hidden=3072, heads=12, projection=768)
_LARGE = {"patch": 14, "width": 1024, "hidden": 4096, "heads": 16, "layers": 24, "projection": 768}

PUBLISHED = {
    "openai/clip-vit-base-patch32": ClipConfig(ClipTextConfig(), ClipVisionConfig()),
    "openai/clip-vit-base-patch16": ClipConfig(ClipTextConfig(), ClipVisionConfig(patch=16)),
    "openai/clip-vit-large-patch14": ClipConfig(_LARGE_TEXT, ClipVisionConfig(**_LARGE)),
    "openai/clip-vit-large-patch14-336": ClipConfig(
        _LARGE_TEXT, ClipVisionConfig(**_LARGE, image=336)
    ),
}
