"""Settings of the text side: the words, the encoder and the control experiment."""

from dataclasses import dataclass
from typing import Literal

from promptmad_jax.runtime.field_types import Layers, Seed, Width


@dataclass(frozen=True)
class TextConfig:
    """Text prompts of the classes, and the encoder that embeds them.

    Attributes:
        source: "clip" is CLIP's text tower with `weights`; "random" a small seeded tower over
            bytes, for runs without weights; "vectors" an .npz file with the arrays `phrases` and
            `vectors`.
        weights: for "clip" a Hugging Face id or a folder with `model.safetensors`, `config.json`
            and the tokenizer; for "vectors" the .npz file; unused for "random".
        vocabulary: YAML or JSON file with your own descriptions; empty for the shipped ones.
        defects: "named" gives one token per defect type of the vocabulary; "generic" gives one
            token, "damaged", which uses none of the test set's defect names.
        control: "shuffled" deals the token vectors to other classes and states.
        width: width of the random tower, and of its vectors.
        layers: depth of the random tower.
        heads: attention heads of the random tower; must divide `width`.
        seed: of the random tower and of the shuffle.

    Raises:
        ValueError: `weights` is missing, or sizes that do not fit.
    """

    source: Literal["clip", "random", "vectors"] = "clip"
    weights: str = "openai/clip-vit-base-patch32"
    vocabulary: str = ""
    defects: Literal["named", "generic"] = "named"
    control: Literal["none", "shuffled"] = "none"
    width: Width = 64
    layers: Layers = 2
    heads: Width = 4
    seed: Seed = 0

    def __post_init__(self):
        if self.source != "random" and not self.weights:
            what = "an .npz file" if self.source == "vectors" else "a Hugging Face id or a folder"
            raise ValueError(f"source={self.source} needs weights: {what}")
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} must divide width={self.width}")
