"""What a zero-shot detector is made of, and the three published settings."""

from dataclasses import dataclass, replace

from promptmad_jax.clip.config import ClipConfig
from promptmad_jax.runtime.errors import UserError

DTYPES = ("float32", "bfloat16")
_CHOICES = {
    "map_from": ("states", "pair"),
    "score_from": ("pair", "map_and_states"),
    "dtype": DTYPES,
}


@dataclass(frozen=True)
class DapoConfig:
    """Settings of `ZeroShotDetector`; the defaults are DAPO's (arXiv 2512.09446).

    There are K + 1 states, the normal one first, and a pair of states: the normal one and the
    normalised mean of the K abnormal ones.

    Attributes:
        image_size: S, pixels; images are squashed to S x S with a bicubic kernel.
        taps: layers of the image tower that give patch features, counted from 1.
        adapters: a trained Linear a tap into the space of the texts; false takes the last
            LayerNorm and the projection of the image tower, which fit its last layer.
        prompts: E, learnt prompts a state; 0 takes hand-written phrases and no trained text.
        prompt_tokens: l, learnt tokens at the start of a prompt.
        text_tokens: deep prompts in each layer of the text tower; 0 for none.
        image_tokens: the same of the image tower. With 0 what it gives of an image never changes
            (`ImageStates`), and may be computed once.
        alpha: of `DeepPrompts`.
        normal_words: what follows the learnt tokens of the normal state.
        defect_words: the same of a defect type.
        temperature: cosines are divided by it.
        softmax_first: over the states at each patch, before enlarging; else after it.
        map_from: the anomaly map is the sum of the abnormal `states`, or the abnormal one of the
            `pair`; always the mean over the taps, so 0..1.
        score_from: the image score is the abnormal one of the `pair` for the class token, or
            `map_and_states`: the map's maximum + 1 - the class token's normal state.
        compat: the published code's two slips in the text tower: no causal mask (so that padding
            counts; it is id 0 up to the full context), and pooling as if no deep prompts stood
            before the end token.
        remat: compute the towers' layers again in the backward pass; less memory, more time.
        dtype: of the image tower; the text tower and all that is trained stay float32.

    Raises:
        UserError: an unknown choice, or values that do not fit together.
    """

    image_size: int = 518
    taps: tuple[int, ...] = (6, 12, 18, 24)
    adapters: bool = True
    prompts: int = 10
    prompt_tokens: int = 5
    text_tokens: int = 4
    image_tokens: int = 4
    alpha: float = 0.01
    normal_words: str = "flawless {object}"
    defect_words: str = "{defect} anomaly {object}"
    temperature: float = 0.07
    softmax_first: bool = True
    map_from: str = "states"
    score_from: str = "pair"
    compat: bool = False
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                _refuse(field, getattr(self, field), f"must be one of {', '.join(choices)}")
        if not self.taps or list(self.taps) != sorted(set(self.taps)) or min(self.taps) < 1:
            _refuse("taps", self.taps, "must be layers in rising order, counted from 1")
        for field in ("prompts", "text_tokens", "image_tokens"):
            if getattr(self, field) < 0:
                _refuse(field, getattr(self, field), "must be 0 or more")
        if self.prompts and self.prompt_tokens < 1:
            _refuse("prompt_tokens", self.prompt_tokens, "must be at least 1")
        if self.text_tokens and not self.prompts:
            _refuse("text_tokens", self.text_tokens, "must be 0 where prompts is 0")
        if not 0 <= self.alpha <= 1:
            _refuse("alpha", self.alpha, "must be in 0..1")
        if not self.temperature > 0:
            _refuse("temperature", self.temperature, "must be positive")
        for field in ("normal_words", "defect_words"):
            _check_words(field, getattr(self, field))
        if "{defect}" not in self.defect_words:
            _refuse("defect_words", self.defect_words, "must contain {defect}")

    @property
    def learns_text(self) -> bool:
        """Whether the states of the texts change in training."""
        return self.prompts > 0

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return self.adapters or self.prompts > 0 or self.image_tokens > 0

    def check(self, clip: ClipConfig) -> None:
        """Raises UserError if this CLIP cannot carry the detector."""
        text, vision = clip.text, clip.vision
        if text is None or vision is None:
            raise UserError("zero-shot detection needs both towers of CLIP; this model lacks one")
        if text.projection is None or text.projection != vision.projection:
            raise UserError(
                "zero-shot detection compares images with texts, but the towers of this CLIP end "
                f"in {vision.projection} and {text.projection} channels; give a model with both "
                "projections"
            )
        if self.taps[-1] > vision.layers:
            _refuse("taps", self.taps, f"the image tower has {vision.layers} layers")
        if self.image_size < vision.patch:
            _refuse("image_size", self.image_size, f"a patch has {vision.patch} pixels")


def _check_words(field: str, words: str) -> None:
    names = {"object": "object", "defect": "defect"}
    if field == "normal_words":
        del names["defect"]
    try:
        words.format(**names)
    except (KeyError, IndexError, ValueError) as error:
        allowed = " and ".join(f"{{{name}}}" for name in names)
        reason = f"is no text with {allowed} ({error!r})"
        raise UserError(f"dapo.{field}={words}: {reason}") from error


def _refuse(field: str, value: object, reason: str) -> None:
    raise UserError(f"dapo.{field}={value}: {reason}")


DAPO = DapoConfig()
# MultiADS (ICCV 2025): of all that is trained only the adapters.
MULTIADS = replace(
    DAPO,
    prompts=0,
    text_tokens=0,
    image_tokens=0,
    temperature=0.01,
    softmax_first=False,
    score_from="map_and_states",
)
# The floor: nothing is trained. WinCLIP's ensemble of phrases (arXiv 2303.14814) without windows,
# at CLIP's own temperature; set `taps` to the last layer of another CLIP.
CLIP_ZERO_SHOT = replace(
    MULTIADS, adapters=False, taps=(24,), softmax_first=True, map_from="pair", score_from="pair"
)
