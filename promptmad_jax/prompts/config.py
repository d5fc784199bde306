"""What the text side is made from: which words, which encoder, which control."""

from dataclasses import dataclass

from promptmad_jax.runtime.errors import UserError

_CHOICES = {
    "source": ("clip", "random", "vectors"),
    "defects": ("named", "generic"),
    "control": ("none", "shuffled"),
}


@dataclass(frozen=True)
class TextConfig:
    """Settings of `encode_classes`.

    Attributes:
        source: `clip` (CLIP's text tower with `weights`), `random` (a small seeded tower over
            bytes, for runs without weights) or `vectors` (an .npz file with arrays `phrases` and
            `vectors`).
        weights: for `clip` a Hugging Face id or a folder with `model.safetensors`, `config.json`
            and the tokenizer; for `vectors` the .npz file; unused for `random`.
        vocabulary: a YAML or JSON file with the user's own descriptions, or "" for the shipped.
        defects: `named` (one token a defect type of the vocabulary) or `generic` (one token,
            "damaged", from the object's name alone: it tells none of the test set's defect names).
        control: `none`, or `shuffled`: the token vectors are dealt to other classes and states.
        width: width of the random tower, and of its vectors.
        layers: depth of the random tower.
        heads: attention heads of the random tower; must divide `width`.
        seed: of the random tower and of the shuffle.

    Raises:
        UserError: on an unknown choice or sizes that do not fit.
    """

    source: str = "clip"
    weights: str = "openai/clip-vit-base-patch32"
    vocabulary: str = ""
    defects: str = "named"
    control: str = "none"
    width: int = 64
    layers: int = 2
    heads: int = 4
    seed: int = 0

    def __post_init__(self):
        for field, choices in _CHOICES.items():
            value = getattr(self, field)
            if value not in choices:
                raise UserError(f"text.{field} is {value!r}; choose one of {', '.join(choices)}")
        if self.source != "random" and not self.weights:
            what = "an .npz file" if self.source == "vectors" else "a Hugging Face id or a folder"
            raise UserError(f"text.source={self.source} needs text.weights: {what}")
        if min(self.width, self.layers, self.heads) < 1 or self.width % self.heads:
            raise UserError(
                f"text.heads={self.heads} must divide text.width={self.width}, and "
                f"text.layers={self.layers} must be at least 1"
            )
